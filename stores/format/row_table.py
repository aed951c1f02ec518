"""The planned rows of a store: record, view, bin and sizes of each, and the outcome codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.errors import PlanError
from stores.key_table import KeyTable

WRITTEN = 0
UNDECODABLE = 1
WRONG_SIZE = 2
NON_FINITE = 3
OVER_LIMIT = 4
NOT_YET = 254
"""Of rows of a partial store whose shard was not finished, see stores.writing.partial_store."""
UNKNOWN = 255
"""The fill of rows/outcome: neither written nor skipped. Never in a committed store."""

OUTCOME_NAMES = {
    WRITTEN: "written",
    UNDECODABLE: "undecodable",
    WRONG_SIZE: "wrong size",
    NON_FINITE: "non-finite features",
    OVER_LIMIT: "over a limit",
    NOT_YET: "not extracted yet",
}
"""Meanings of the codes of rows/outcome. Codes 5 to 253 are the data set's own; 255 means no outcome yet."""

MAX_ROWS = 1 << 24
MAX_KEY_BYTES = 4096

TABLE_DTYPES: dict[str, np.dtype[np.generic]] = {
    "key": np.dtype("u1"),
    "view": np.dtype("<i4"),
    "params": np.dtype("<f8"),
    "bin": np.dtype("<i4"),
    "padded_hw": np.dtype("<i4"),
    "valid_hw": np.dtype("<i4"),
    "original_hw": np.dtype("<i4"),
}
"""The planned tables under rows/, in the order they are written."""


def _frozen(
    array: npt.ArrayLike, dtype: np.dtype[np.generic], shape: tuple[int, ...], name: str
) -> npt.NDArray[np.generic]:
    given = np.asarray(array)
    is_fixed = given.dtype == dtype and given.flags.c_contiguous and not given.flags.writeable
    exact = given if is_fixed else np.array(given, dtype=dtype, order="C")
    if exact.shape != shape:
        raise PlanError(f"rows.{name} has shape {exact.shape}, expected {shape}")
    exact.setflags(write=False)
    return exact


class LazyTable:
    """A table that is read, and its digest compared, when it is first used as an array."""

    def __init__(self, shape: tuple[int, ...], read: Callable[[], npt.NDArray[Any]]) -> None:
        self.shape, self.ndim, self._read = shape, len(shape), read
        self._array: npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if self._array is None:
            self._array = self._read()
        return np.array(self._array, dtype=dtype, copy=copy)

    def __getitem__(self, place: Any) -> Any:
        return self.__array__()[place]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowTable:
    """The planned rows of a whole store, in plan order over all bins.

    Raises PlanError for lengths that differ, an empty, repeated or oversized (key, view), or sizes that
    contradict each other.
    """

    keys: Sequence[str]
    """The content key of each row's record; UTF-8 without NUL, at most 4096 bytes. A tuple, or a KeyTable of
    rows read from a disk."""
    view: npt.NDArray[np.int32]
    """(rows,) index of the row's view, from 0."""
    params: npt.NDArray[np.float64]
    """(rows, P) parameters to replay the view, named by the plan's view_params. Of rows read from a disk a
    LazyTable."""
    bin: npt.NDArray[np.int32]
    """(rows,) index into the plan's bins."""
    padded_hw: npt.NDArray[np.int32]
    """(rows, 2) height and width in pixels of the backbone's input, padding included."""
    valid_hw: npt.NDArray[np.int32]
    """(rows, 2) height and width of the part that is image."""
    original_hw: npt.NDArray[np.int32]
    """(rows, 2) height and width of the source image after EXIF rotation."""

    def __post_init__(self) -> None:
        if not isinstance(self.keys, KeyTable):
            object.__setattr__(self, "keys", tuple(str(key) for key in self.keys))
        rows = len(self.keys)
        if not 1 <= rows <= MAX_ROWS:
            raise PlanError(f"a store of {rows} rows, expected 1 to {MAX_ROWS}")
        names = ["view", "params", "bin", "padded_hw", "valid_hw", "original_hw"]
        shapes: dict[str, tuple[int, ...]] = {"view": (rows,), "bin": (rows,)}
        given: Any = self.params
        if isinstance(given, LazyTable) and len(given) == rows:
            names.remove("params")
        else:
            params = np.asarray(self.params)
            shapes["params"] = rows, params.shape[1] if params.ndim == 2 else 0
        for name in names:
            exact = _frozen(getattr(self, name), TABLE_DTYPES[name], shapes.get(name, (rows, 2)), name)
            object.__setattr__(self, name, exact)
        self._check()

    def _check(self) -> None:
        keys = self.keys if isinstance(self.keys, KeyTable) else _key_table(self.keys)
        if (row := keys.malformed) is not None:
            raise _malformed_key(keys[row])
        if keys.repeats(self.view):
            raise PlanError("two rows hold the same record under the same view")
        if (self.view < 0).any() or (self.bin < 0).any():
            raise PlanError("a view or bin index is negative")
        if (
            (self.valid_hw < 1).any()
            or (self.valid_hw > self.padded_hw).any()
            or (self.original_hw < 1).any()
        ):
            raise PlanError(
                "a row's valid size is empty or exceeds its padded size, or its original size is empty"
            )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def key_bytes(self) -> int:
        """K: bytes of the longest key."""
        if isinstance(self.keys, KeyTable):
            return int(self.keys.table.shape[1])
        return max(len(key.encode()) for key in self.keys)

    @property
    def view_count(self) -> int:
        """V: planned views of a record, skipped ones included."""
        return int(self.view.max()) + 1

    def bin_rows(self, bin_index: int) -> npt.NDArray[np.int64]:
        """(rows of the bin,) plan row of every bin-local row."""
        return np.flatnonzero(self.bin == bin_index).astype(np.int64)

    def to_tables(self) -> dict[str, npt.NDArray[np.generic]]:
        """The arrays under rows/, little-endian and C-ordered, in the order of TABLE_DTYPES."""
        keys = (self.keys if isinstance(self.keys, KeyTable) else _key_table(self.keys)).table
        return {name: keys if name == "key" else np.asarray(getattr(self, name)) for name in TABLE_DTYPES}

    @classmethod
    def from_tables(cls, tables: Mapping[str, npt.NDArray[np.generic]]) -> RowTable:
        """The inverse of to_tables. Raises PlanError as the constructor does, or UnicodeDecodeError."""
        rest = {name: tables[name] for name in TABLE_DTYPES if name != "key"}
        return cls(keys=KeyTable(tables["key"]), **rest)  # type: ignore[arg-type]


def _key_table(keys: Sequence[str]) -> KeyTable:
    """Raises PlanError for a key that such a table cannot hold."""
    for key in keys:
        if not key or "\0" in key or len(key.encode()) > MAX_KEY_BYTES:
            raise _malformed_key(key)
    encoded = np.array([key.encode() for key in keys])  # numpy pads byte strings with NUL
    return KeyTable(encoded.view(np.uint8).reshape(len(keys), encoded.dtype.itemsize))


def _malformed_key(key: str) -> PlanError:
    return PlanError(f"record key {key[:80]!r}: expected 1 to {MAX_KEY_BYTES} bytes of UTF-8 without NUL")
