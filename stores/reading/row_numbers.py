"""Row numbers as a caller writes them: numbers, slices, boolean masks, lists, arrays, tensors."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class HasArray(Protocol):
    """Anything that numpy reads as an array, such as a torch tensor on the CPU."""

    def __array__(self, dtype: Any = None, /) -> npt.NDArray[Any]: ...


ManyRows = slice | Sequence[int] | npt.NDArray[Any] | HasArray
"""A slice, or numbers (n,) or a boolean mask (rows of the store,) as a list, an array or a tensor. Negative
numbers count from the end."""
Rows = int | ManyRows
"""The same, or one number."""


def is_one_row(asked: Any) -> bool:
    """Whether it is a single number: an int, a numpy integer, or an integer array or tensor of no axes.

    >>> is_one_row(3), is_one_row(np.int64(3)), is_one_row([3]), is_one_row(True)
    (True, True, False, False)
    """
    if isinstance(asked, int):
        return not isinstance(asked, bool)
    if getattr(asked, "ndim", 1) != 0:
        return False
    try:
        return bool(np.asarray(asked).dtype.kind in "iu")
    except Exception:  # what is no array is refused where it is read as one
        return False


def row_numbers(asked: Rows, count: int, where: str) -> npt.NDArray[np.int64]:
    """The rows as int64 (n,), each in 0..count-1.

    >>> [row_numbers(rows, 3, "store").tolist() for rows in (slice(1, None), [True, False, True], [-1])]
    [[1, 2], [0, 2], [2]]

    Args:
        asked: which rows.
        count: of the store.
        where: the store, for messages.

    Raises:
        IndexError: a row that does not exist, or a mask of another length than `count`.
        TypeError: anything but rows, such as floats or record keys.
        ValueError: an array of more than one axis.
    """
    if isinstance(asked, slice):
        return np.arange(*asked.indices(count), dtype=np.int64)
    found = _array(asked, where)
    if found.ndim > 1:
        raise ValueError(f"{where}: rows have the shape {found.shape}, expected one axis; flatten them first")
    if found.dtype == np.bool_ and found.ndim == 1:
        if len(found) != count:
            raise IndexError(
                f"{where}: a mask of {len(found)} rows, expected one of {count}, the rows of the store"
            )
        return np.flatnonzero(found).astype(np.int64)
    if found.size == 0:  # an empty list is float64 to numpy
        return np.empty(0, dtype=np.int64)
    if found.dtype.kind not in "iu":
        raise TypeError(f"{where}: rows are {_kind_of(found)}, expected whole numbers, a mask or a slice")
    found = found.reshape(-1)
    lowest, highest = int(found.min()), int(found.max())  # before the cast: uint64 may not fit int64
    if lowest < -count or highest >= count:
        wrong = highest if highest >= count else lowest
        there = f"rows 0 to {count - 1}" if count else "no rows"
        raise IndexError(f"{where} has {there}; asked for row {wrong}")
    numbers = found.astype(np.int64)
    return np.where(numbers < 0, numbers + count, numbers) if lowest < 0 else numbers


def _array(asked: Any, where: str) -> npt.NDArray[Any]:
    try:
        found = np.asarray(asked)
    except Exception as error:  # a ragged list, a tensor on a GPU
        raise TypeError(f"{where}: rows given as {type(asked).__name__} are no array: {error}") from None
    if found.dtype != object:
        return found
    try:  # whole numbers that are too large for numpy
        numbers = [operator.index(number) for number in found.reshape(-1)]
    except TypeError:
        raise TypeError(
            f"{where}: rows given as {type(asked).__name__}, expected a number, a slice, or a list, array or "
            "tensor of whole numbers or booleans"
        ) from None
    outside = max(numbers, key=abs)
    raise IndexError(f"{where}: asked for row {outside}, which no store has")


def _kind_of(found: npt.NDArray[Any]) -> str:
    if found.dtype.kind in "US":
        return "text; store.row_of(key, view) gives the row of a record"
    return f"{found.dtype} {found.shape}" if found.ndim else str(found.dtype)
