"""Host memory that batches pass through again and again, page-locked for a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Arrays = Mapping[str, npt.NDArray[Any]]

_ALIGNMENT = 16  # bytes: of every dtype there is


class HostSlot:
    """Memory of one batch: the encoded rows of each level as numpy arrays and as the tensors over them, and
    what it takes to send ragged arrays in one piece.

    Args:
        levels: the arrays of each level, with room for a batch.
        pinned: whether copies to a GPU are to run beside its work.
    """

    def __init__(self, levels: Mapping[str, Arrays], pinned: bool) -> None:
        self.tensors = {
            level: {name: self._host_tensor(array, pinned) for name, array in parts.items()}
            for level, parts in levels.items()
        }
        self.arrays = {
            level: {name: tensor.numpy() for name, tensor in parts.items()}
            for level, parts in self.tensors.items()
        }
        self.bytes = sum(array.nbytes for parts in self.arrays.values() for array in parts.values())
        self.copied: torch.cuda.Event | None = None
        self._packed = torch.empty(0, dtype=torch.uint8)

    @staticmethod
    def _host_tensor(array: npt.NDArray[Any], pinned: bool) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if pinned else tensor

    def wait_until_free(self) -> None:
        """Returns when the last copy out of this memory has ended."""
        if self.copied is not None:
            self.copied.synchronize()

    def upload(self, rows: Sequence[Arrays], device: torch.device) -> list[dict[str, Tensor]]:
        """Arrays of any shape on `device`: in one copy to a GPU, without any on a CPU."""
        if device.type != "cuda":
            return [
                # asarray: ascontiguousarray would give a label of no axes one.
                {name: torch.from_numpy(np.asarray(array, order="C")) for name, array in row.items()}
                for row in rows
            ]
        plan = plan_packing(rows)
        if len(self._packed) < plan.bytes:
            self._packed = torch.empty(2 * plan.bytes, dtype=torch.uint8, pin_memory=True)
        packed = self._packed[: plan.bytes]
        pack(rows, plan, packed.numpy())
        return unpack(packed.to(device, non_blocking=True), plan)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    name: str
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """Where each array of each row stands in one piece of memory."""

    rows: tuple[tuple[_Place, ...], ...]
    bytes: int


def plan_packing(rows: Sequence[Arrays]) -> Packing:
    """The arrays one after another, each where any dtype may begin."""
    start, planned = 0, []
    for row in rows:
        places = []
        for name, array in row.items():
            dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
            places.append(_Place(name=name, start=start, dtype=dtype, shape=array.shape, bytes=array.nbytes))
            start += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        planned.append(tuple(places))
    return Packing(rows=tuple(planned), bytes=start)


def pack(rows: Sequence[Arrays], plan: Packing, out: npt.NDArray[np.uint8]) -> None:
    """Copies the arrays into `out`, uint8 (plan.bytes,)."""
    for row, places in zip(rows, plan.rows, strict=True):
        for place in places:
            flat = np.ascontiguousarray(row[place.name]).reshape(-1).view(np.uint8)
            out[place.start : place.start + place.bytes] = flat


def unpack(packed: Tensor, plan: Packing) -> list[dict[str, Tensor]]:
    """The arrays of each row as views of `packed`, uint8 (plan.bytes,) on any device."""
    return [{place.name: _view(packed, place) for place in places} for places in plan.rows]


def _view(packed: Tensor, place: _Place) -> Tensor:
    if not place.bytes:  # no bytes can be seen as another dtype
        return torch.empty(place.shape, dtype=place.dtype, device=packed.device)
    return packed[place.start : place.start + place.bytes].view(place.dtype).view(place.shape)
