"""Keys of many rows as one array: a million strings take ten times the memory of their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 16
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio


class KeyTable(Sequence[str]):
    """The keys in a table of NUL-padded UTF-8, uint8 (rows, K), decoded when they are asked for.

    Equal to a tuple of the same keys. Raises UnicodeDecodeError for bytes that are not UTF-8.
    """

    __slots__ = ("_joined", "table")

    def __init__(self, table: npt.NDArray[np.uint8]) -> None:
        self.table = np.ascontiguousarray(table)
        self.table.setflags(write=False)
        self._joined = self.table.view(f"S{table.shape[1]}").reshape(-1)
        if (self.table > 127).any():
            for _ in self:  # the first that is none raises
                pass

    def __len__(self) -> int:
        return len(self._joined)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return tuple(key.decode() for key in self._joined[place].tolist())
        key: bytes = self._joined[place]
        return key.decode()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            yield from self[start : start + _BLOCK]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, KeyTable) and self.table.shape == other.table.shape:
            return bool((self.table == other.table).all())
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: npt.NDArray[np.int64]) -> tuple[str, ...]:
        """The keys of some rows."""
        return tuple(key.decode() for key in self._joined[rows].tolist())

    @property
    def malformed(self) -> int | None:
        """The first row whose key is empty or has a NUL inside; None where there is none."""
        is_set = self.table != 0
        wrong = ~is_set[:, 0] | (is_set[:, 1:] & ~is_set[:, :-1]).any(axis=1)
        return int(wrong.argmax()) if wrong.any() else None

    def repeats(self, views: npt.NDArray[np.int32]) -> bool:
        """Whether two rows have the same key and view."""
        # Rows of different hashes differ; equal hashes, of which 10**6 rows have none, are looked at.
        hashes = _hashes(self.table, views)
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
        suspects = np.unique(np.concatenate([order[same], order[same + 1]]))
        pairs = {(self._joined[row], int(views[row])) for row in suspects.tolist()}
        return len(pairs) < len(suspects)


def _hashes(table: npt.NDArray[np.uint8], views: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
    found = views.astype(np.uint64) * _MIX
    for start in range(0, table.shape[1], 8):
        word = np.zeros((len(table), 8), np.uint8)
        part = table[:, start : start + 8]
        word[:, : part.shape[1]] = part
        found ^= word.view(np.uint64).reshape(-1)
        found *= _MIX
        found ^= found >> np.uint64(29)
    return found
