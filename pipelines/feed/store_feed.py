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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from extract.codecs.devices.contract import DeviceCodec
from extract.codecs.on_device import device_codec, has_device_half, level_codecs
from pipelines.feed.host_ring import Arrays, HostSlot
from pipelines.feed.joined_stores import JoinedStores, Rows
from pipelines.feed.pace import Reading
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


def dequantise(codec: str | DeviceCodec, encoded: Mapping[str, Tensor]) -> Tensor:
    """Rows as a store of this codec keeps them, made float32 (N, C, [T,] H, W), channels last in memory.

    The codec is chosen by its name alone, never by which arrays are present; a fitted one is given as such.

    >>> encoded = {"q": torch.ones(1, 2, 2, 3, dtype=torch.int8), "scale": torch.full((1, 3), 0.5)}
    >>> dequantise("int8", encoded).shape, float(dequantise("int8", encoded).sum())
    (torch.Size([1, 3, 2, 2]), 6.0)
    """
    made = device_codec(codec) if isinstance(codec, str) else codec
    return made.decode(encoded).movedim(-1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    slot: HostSlot
    encoded: dict[str, dict[str, Tensor]]
    """Level -> the codec's arrays on the device; empty where the reading thread has decoded them."""
    decoded: dict[str, Tensor]
    """Level -> float32 (N, [T,] H, W, C) on the device, of a codec without a device half."""
    targets: list[dict[str, Tensor]]
    read: dict[str, Tensor]
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
        self._stores, self._row_batches, self._task = stores, row_batches, task
        self._targets = targets_there(task, task.training_targets, stores.targets)
        self._levels, self._device, self._finish = tuple(levels), device, finish
        self._plan, self._on_device = stores.plan, has_device_half(stores.codec)
        self._codecs = level_codecs(stores.plan)
        self._copies = (
            torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            if device.type == "cuda"
            else None
        )
        self._batches, self._bytes, self._waited_s = 0, 0, 0.0
        self._free: queue.SimpleQueue[HostSlot | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[_Loaded | BaseException | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        for _ in range(RING_SLOTS):
            self._free.put(HostSlot(stores.buffers(batch_size, levels), pinned=device.type == "cuda"))
        self._reader = threading.Thread(target=self._read_ahead, name="store-feed", daemon=True)
        self._reader.start()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        loaded = self._wait()
        self._wait_for_copy(loaded)
        features = {level: x.movedim(-1, 1) for level, x in loaded.decoded.items()}
        features |= {level: dequantise(self._codecs[level], parts) for level, parts in loaded.encoded.items()}
        self._free.put(loaded.slot)
        batch = Batch(features=features, targets=loaded.targets, valid_hw=loaded.valid_hw, keys=loaded.keys)
        return batch if self._finish is None else self._finish.finish(batch, loaded.read)

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
        on_host = {} if self._on_device else self._decoded_on_host(slot)
        with self._side_stream():
            encoded = {
                level: {name: tensor.to(self._device, non_blocking=True) for name, tensor in parts.items()}
                for level, parts in slot.tensors.items()
                if level not in on_host
            }
            decoded = {level: x.to(self._device, non_blocking=True) for level, x in on_host.items()}
            *targets, read = slot.upload(arrays, self._device)
            slot.copied = self._copies.record_event() if self._copies else None
        return _Loaded(
            slot=slot,
            encoded=encoded,
            decoded=decoded,
            targets=targets,
            read=read,
            valid_hw=self._stores.valid_hw(rows),
            keys=self._stores.keys(rows),
        )

    def _decoded_on_host(self, slot: HostSlot) -> dict[str, Tensor]:
        """Level -> float32 (N, [T,] H, W, C) by numpy, here and not in the step, which would wait for it."""
        # Copied: a codec may return a view of its arrays, whose memory is read into again.
        return {
            level: torch.from_numpy(self._plan.level_codec(level).decode(parts).copy())
            for level, parts in slot.arrays.items()
        }

    def _side_stream(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._copies) if self._copies else nullcontext()

    def _wait_for_copy(self, loaded: _Loaded) -> None:
        """Makes the step's stream, not the host, wait for the copy; the memory then is that stream's."""
        if loaded.slot.copied is None:
            return
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(loaded.slot.copied)
        for row in (*loaded.encoded.values(), loaded.decoded, *loaded.targets, loaded.read):
            for tensor in row.values():
                tensor.record_stream(stream)
