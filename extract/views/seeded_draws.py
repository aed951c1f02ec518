"""Random draws keyed by purpose: independent of order, rank, process and library."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from stores.format.canonical_json import canonical_json


class Draws:
    """A counter-based generator: number n is sha256 of the key and n. One key for each purpose, so that one
    more draw for the crop leaves the colours as they were.

    >>> Draws("ade20k", "ADE_train_00000001", 0, 0, "crop").integer(100)
    93
    """

    def __init__(self, *key: str | int) -> None:
        """Args: key: names the choice, such as (data set, record, view, seed, purpose)."""
        self._begin(canonical_json(list(key)))

    def _begin(self, key: bytes) -> None:
        self._prefix, self._count = hashlib.sha256(key).digest(), 0

    def _bits(self) -> int:
        block = hashlib.sha256(self._prefix + self._count.to_bytes(8, "little")).digest()
        self._count += 1
        return int.from_bytes(block[:8], "little")

    def uniform(self, low: float, high: float) -> float:
        """From low (included) to high (excluded)."""
        return low + (high - low) * ((self._bits() >> 11) * 2.0**-53)

    def integer(self, count: int) -> int:
        """From 0 to count - 1."""
        return self._bits() * count >> 64

    def happens(self, probability: float) -> bool:
        return self.uniform(0.0, 1.0) < probability


class ViewDraws:
    """The draws of one view, one generator for each purpose; the key is encoded once.

    >>> ViewDraws("ade20k", "ADE_train_00000001", 0, 0)("crop").integer(100)
    93
    """

    __slots__ = ("_opened",)

    def __init__(self, dataset: str, record_key: str, index: int, seed: int) -> None:
        self._opened = canonical_json([dataset, record_key, index, seed])[:-1]

    def __call__(self, purpose: str) -> Draws:
        draws = Draws.__new__(Draws)
        draws._begin(self._opened + _closed(purpose))
        return draws


@lru_cache(maxsize=64)
def _closed(purpose: str) -> bytes:
    return b"," + canonical_json(purpose) + b"]"
