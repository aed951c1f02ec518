"""From stores to batches on the device: the only data path of a training step.

A thread reads encoded rows into a ring of reused buffers and starts their copy; the step dequantises on the
device and never waits for anything but a batch that is not there yet. Dims: N rows, C channels, H, W cells.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from extract.device_codec import decode
from pipelines.joined_stores import JoinedStores, Rows
from pipelines.tasks import Task

RING_SLOTS = 3  # one being read, one waiting, one being dequantised


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


def dequantise(encoded: Mapping[str, Tensor]) -> Tensor:
    """Rows as a store keeps them, made float32 (N, C, [T,] H, W) without a second copy: channels last.

    >>> encoded = {"q": torch.ones(1, 2, 2, 3, dtype=torch.int8), "scale": torch.full((1, 3), 0.5)}
    >>> dequantise(encoded).shape, float(dequantise(encoded).sum())
    (torch.Size([1, 3, 2, 2]), 6.0)
    """
    return decode(encoded).movedim(-1, 1)


class _Slot:
    """Host memory of one batch, page-locked for a GPU, as numpy arrays and as the tensors over them."""

    def __init__(self, arrays: Mapping[str, Mapping[str, npt.NDArray[Any]]], pinned: bool) -> None:
        self.tensors = {
            level: {name: _host_tensor(array, pinned) for name, array in parts.items()}
            for level, parts in arrays.items()
        }
        self.arrays = {
            level: {name: tensor.numpy() for name, tensor in parts.items()}
            for level, parts in self.tensors.items()
        }
        self.copied: torch.cuda.Event | None = None

    def wait_until_free(self) -> None:
        """Returns when the last copy out of this memory has ended."""
        if self.copied is not None:
            self.copied.synchronize()


def _host_tensor(array: npt.NDArray[Any], pinned: bool) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if pinned else tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    slot: _Slot
    encoded: dict[str, dict[str, Tensor]]
    targets: list[dict[str, Tensor]]
    valid_hw: list[tuple[int, int]]
    keys: tuple[str, ...]


class StoreFeed:
    """An iterable of `Batch`es on `device`, read ahead by one thread; iterate it again to start over."""

    def __init__(
        self,
        stores: JoinedStores,
        row_batches: Iterator[Rows],
        *,
        batch_size: int,
        levels: Sequence[str],
        task: Task,
        device: torch.device,
    ) -> None:
        self._stores, self._row_batches, self._task = stores, row_batches, task
        self._levels, self._device = tuple(levels), device
        self._copies = (
            torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            if device.type == "cuda"
            else None
        )
        self._free: queue.SimpleQueue[_Slot | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[_Loaded | BaseException | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        for _ in range(RING_SLOTS):
            self._free.put(_Slot(stores.buffers(batch_size, levels), pinned=device.type == "cuda"))
        self._reader = threading.Thread(target=self._read_ahead, name="store-feed", daemon=True)
        self._reader.start()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        loaded = self._ready.get()
        if loaded is None:
            self._ready.put(None)  # so that a further call stops too
            raise StopIteration
        if isinstance(loaded, BaseException):
            raise loaded
        self._wait_for_copy(loaded)
        features = {level: dequantise(parts) for level, parts in loaded.encoded.items()}
        self._free.put(loaded.slot)
        return Batch(features=features, targets=loaded.targets, valid_hw=loaded.valid_hw, keys=loaded.keys)

    def close(self) -> None:
        """Stops the reading thread. The stores stay open."""
        self._closed.set()
        self._free.put(None)
        self._reader.join()

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

    def _load(self, slot: _Slot, rows: Rows) -> _Loaded:
        slot.wait_until_free()
        rows = self._stores.read_encoded(rows, self._levels, slot.arrays)
        stored = self._stores.read_targets(rows, self._task.training_targets)
        row_targets = [self._task.head_targets(row) for row in stored]
        with self._side_stream():
            encoded = {
                level: {name: tensor.to(self._device, non_blocking=True) for name, tensor in parts.items()}
                for level, parts in slot.tensors.items()
            }
            targets = [{name: self._upload(array) for name, array in row.items()} for row in row_targets]
            slot.copied = self._copies.record_event() if self._copies else None
        return _Loaded(
            slot=slot,
            encoded=encoded,
            targets=targets,
            valid_hw=self._stores.valid_hw(rows),
            keys=self._stores.keys(rows),
        )

    def _upload(self, array: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._copies is None:
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _side_stream(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._copies) if self._copies else nullcontext()

    def _wait_for_copy(self, loaded: _Loaded) -> None:
        """Makes the step's stream, not the host, wait for the copy; the memory then is that stream's."""
        if loaded.slot.copied is None:
            return
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(loaded.slot.copied)
        parts = [tensor for level in loaded.encoded.values() for tensor in level.values()]
        for tensor in parts + [tensor for row in loaded.targets for tensor in row.values()]:
            tensor.record_stream(stream)
