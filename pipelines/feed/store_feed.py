"""From stores to batches on the device: the only data path of a training step.

A thread reads encoded rows, several batches ahead, into a ring of reused buffers and starts their copy; the
step dequantises on the device and never waits for anything but a batch that is not there yet. Dims: N rows,
C channels, T frames, H, W cells.

Memory, whatever the length of a run: RING_SLOTS encoded batches on the host, as many on a GPU, and the
dequantised batch that is being trained on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipelines.feed.host_ring import Arrays, HostSlot
from pipelines.feed.joined_stores import JoinedStores, Rows
from pipelines.feed.pace import Reading
from pipelines.feed.transfer import Sent, Transfer
from pipelines.tasks import Task
from pipelines.tasks.contract import targets_there

RING_SLOTS = 4  # one being read into, two waiting, one being dequantised


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What a head learns from in one step."""

    features: dict[str, Tensor]
    """Level -> float32 (N, C, [T,] H, W), channels last in memory."""
    targets: list[dict[str, Tensor]]
    """Of each row, in view space; see `Task.head_targets`."""
    valid_hw: list[tuple[int, int]]
    """Of each row, the size in pixels before padding."""
    keys: tuple[str, ...]
    """Of each row, its record."""


class Finish(Protocol):
    """A further step of every batch: what it needs besides encoded rows, and what is done with it."""

    def read(self, rows: Rows) -> Arrays:
        """Host arrays for these rows, as they stand in the batch. Runs in the reading thread."""

    def finish(self, batch: Batch, read: Mapping[str, Tensor]) -> Batch:
        """The batch as the head gets it. Runs in the step, `read` and the batch being on the device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    slot: HostSlot
    sent: Sent
    valid_hw: list[tuple[int, int]]
    keys: tuple[str, ...]


class StoreFeed:
    """An iterator of `Batch`es on `device`, read ahead by one thread and those of the stores.

    Args:
        stores: to read from.
        row_batches: the rows of each batch; taken in the reading thread.
        batch_size: the most rows of a batch.
        levels: to read.
        task: whose targets to read.
        device: where batches are wanted.
        finish: what else is done to a batch; None for nothing.
    """

    def __init__(
        self,
        stores: JoinedStores,
        row_batches: Iterator[Rows],
        *,
        batch_size: int,
        levels: Sequence[str],
        task: Task,
        device: torch.device,
        finish: Finish | None = None,
    ) -> None:
        self._stores, self._task = stores, task
        self._targets = targets_there(task, task.training_targets, stores.targets)
        self._row_batches = stores.announced(row_batches, levels, self._targets)
        self._levels, self._finish = tuple(levels), finish
        self._transfer = Transfer(stores.plan, device)
        self._batches, self._bytes, self._waited_s = 0, 0, 0.0
        self._free: queue.SimpleQueue[HostSlot | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[_Loaded | BaseException | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        for _ in range(RING_SLOTS):
            self._free.put(self._transfer.slot(stores.buffers(batch_size, levels)))
        self._reader = threading.Thread(target=self._read_ahead, name="store-feed", daemon=True)
        self._reader.start()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        loaded = self._wait()
        features = self._transfer.features(loaded.sent)
        self._free.put(loaded.slot)
        *targets, read = loaded.sent.others
        batch = Batch(features=features, targets=targets, valid_hw=loaded.valid_hw, keys=loaded.keys)
        return batch if self._finish is None else self._finish.finish(batch, read)

    @property
    def reading(self) -> Reading:
        """What it has done so far."""
        return Reading(batches=self._batches, bytes=self._bytes, waited_s=self._waited_s)

    def close(self) -> None:
        """Stops the reading thread. The stores stay open."""
        self._closed.set()
        self._free.put(None)
        self._reader.join()

    def _wait(self) -> _Loaded:
        began = time.perf_counter()
        loaded = self._ready.get()
        self._waited_s += time.perf_counter() - began
        if loaded is None:
            self._ready.put(None)  # so that a further call stops too
            raise StopIteration
        if isinstance(loaded, BaseException):
            self._ready.put(loaded)
            raise loaded
        self._batches += 1
        return loaded

    def _read_ahead(self) -> None:
        try:
            for rows in self._row_batches:
                slot = self._free.get()
                if slot is None or self._closed.is_set():
                    return
                self._ready.put(self._load(slot, rows))
            self._ready.put(None)
        except BaseException as error:  # handed to the training thread, which raises it
            self._ready.put(error)

    def _load(self, slot: HostSlot, rows: Rows) -> _Loaded:
        slot.wait_until_free()
        rows = self._stores.read_encoded(rows, self._levels, slot.arrays)
        self._bytes += slot.bytes
        stored = self._stores.read_targets(rows, self._targets)
        arrays = [self._task.head_targets(row) for row in stored]
        arrays.append({} if self._finish is None else self._finish.read(rows))
        return _Loaded(
            slot=slot,
            sent=self._transfer.send(slot, len(rows), arrays),
            valid_hw=self._stores.valid_hw(rows),
            keys=self._stores.keys(rows),
        )
