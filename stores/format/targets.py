"""Targets of a store: dense ones of a fixed shape, ragged ones whose size differs by row."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.errors import PlanError

TARGET_DTYPES = (
    "bool",
    *(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)),
    "float32",
    "float64",
)
MAX_CHUNK_BYTES = 1 << 31
"""Largest chunk of a store: bounds what a hostile plan can make a reader allocate at once."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _check(name: str, dtype: str, shape: Sequence[int | str], words: tuple[str, ...]) -> None:
    if not _NAME.fullmatch(name) or name.endswith(("_bytes", "_crc")):  # names of the tables beside a target
        raise PlanError(f"target name {name!r}: expected {_NAME.pattern}, not ending in _bytes or _crc")
    if dtype not in TARGET_DTYPES:
        raise PlanError(f"target {name}: dtype {dtype!r}, expected one of {', '.join(TARGET_DTYPES)}")
    for size in shape:
        known = size in words if isinstance(size, str) else type(size) is int and -1 <= size < 1 << 31
        if not known:
            raise PlanError(
                f"target {name}: size {size!r} in {tuple(shape)}, expected an int or one of {words}"
            )


@dataclass(frozen=True, slots=True)
class DenseTarget:
    """A target of one shape for all rows of a bin. Raises PlanError for an unknown dtype or size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """Of one row; "y" and "x" are the bin's padded height and width in pixels. () is a scalar."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        _check(self.name, self.dtype, self.shape, ("y", "x"))
        if any(isinstance(size, int) and size < 1 for size in self.shape):
            raise PlanError(f"target {self.name}: shape {self.shape} has a size below 1")

    def row_shape(self, height_px: int, width_px: int) -> tuple[int, ...]:
        """The shape of one row in a bin of this padded size."""
        words: Mapping[int | str, int] = {"y": height_px, "x": width_px}
        return tuple(words.get(size, 0) if isinstance(size, str) else size for size in self.shape)

    def row_bytes(self, height_px: int, width_px: int) -> int:
        """Bytes of one row in a bin of this padded size."""
        return math.prod(self.row_shape(height_px, width_px)) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        return {"kind": "dense", "name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class RaggedTarget:
    """A target whose size differs by row, kept as bytes. Raises PlanError for an unknown dtype or size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """Of one row: ints, at most one of them -1 (computed from the number of bytes), or the words "original_y"
    and "original_x", the row's original size in pixels."""
    cap_bytes: int
    """Most bytes of a row, fixed by the plan. A larger row is an error, never truncated."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        _check(self.name, self.dtype, self.shape, ("original_y", "original_x"))
        if self.shape.count(-1) > 1:
            raise PlanError(f"target {self.name}: shape {self.shape} has more than one -1")
        if type(self.cap_bytes) is not int or not 1 <= self.cap_bytes < MAX_CHUNK_BYTES:
            raise PlanError(
                f"target {self.name}: cap_bytes {self.cap_bytes!r}, expected 1 to {MAX_CHUNK_BYTES - 1}"
            )

    def row_shape(self, original_hw: Sequence[int], stored_bytes: int) -> tuple[int, ...]:
        """The shape of a row of `stored_bytes`. Raises PlanError if these bytes do not fill it."""
        words: Mapping[int | str, int] = {
            "original_y": int(original_hw[0]),
            "original_x": int(original_hw[1]),
        }
        sizes = [words.get(size, 0) if isinstance(size, str) else size for size in self.shape]
        elements, odd = divmod(stored_bytes, np.dtype(self.dtype).itemsize)
        if -1 in sizes:
            known = math.prod(size for size in sizes if size != -1)
            sizes[sizes.index(-1)] = elements // known if known else 0
        if odd or math.prod(sizes) != elements:
            raise PlanError(
                f"target {self.name}: {stored_bytes} bytes of {self.dtype} do not fill {tuple(sizes)}"
            )
        return tuple(sizes)

    def planned_bytes(self, original_hw: Sequence[int]) -> int:
        """Bytes of a row: exact if its shape is known, else the cap."""
        if -1 in self.shape:
            return self.cap_bytes
        words: Mapping[int | str, int] = {
            "original_y": int(original_hw[0]),
            "original_x": int(original_hw[1]),
        }
        sizes = [words.get(size, 0) if isinstance(size, str) else size for size in self.shape]
        return math.prod(sizes) * np.dtype(self.dtype).itemsize

    def all_planned_bytes(self, original_hw: npt.ArrayLike) -> int:
        """`planned_bytes` of many rows together.

        Args: original_hw: int (rows, 2).
        """
        sizes = np.asarray(original_hw, np.int64)
        if -1 in self.shape:
            return len(sizes) * self.cap_bytes
        found, counts = np.unique(
            sizes @ [1 << 32, 1], return_counts=True
        )  # rows of one size have one number
        return sum(
            count * self.planned_bytes(divmod(size, 1 << 32))
            for size, count in zip(found.tolist(), counts.tolist(), strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "ragged",
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "cap_bytes": self.cap_bytes,
        }


Target = DenseTarget | RaggedTarget


def target_from_json(fields: Mapping[str, Any]) -> Target:
    """The inverse of to_json. Raises PlanError for another kind, TypeError or KeyError for other fields."""
    kinds = {"dense": DenseTarget, "ragged": RaggedTarget}
    if fields["kind"] not in kinds:
        raise PlanError(f"target of kind {fields['kind']!r}, expected dense or ragged")
    rest = {name: value for name, value in fields.items() if name != "kind"}
    target: Target = kinds[fields["kind"]](**rest)
    return target
