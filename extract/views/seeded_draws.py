"""Random draws keyed by purpose: independent of order, rank, process and library."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from stores.format.canonical_json import canonical_json

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]


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
        draws._begin(self._opened + closed_key(purpose))
        return draws


@lru_cache(maxsize=64)
def closed_key(purpose: str) -> bytes:
    """What follows (data set, record, view, seed) in the key of a purpose."""
    return b"," + canonical_json(purpose) + b"]"


class ManyDraws:
    """`Draws` of many records; each has its own count of numbers drawn."""

    def __init__(self, prefixes: Sequence[bytes]) -> None:
        self._prefixes, self._counts = prefixes, np.zeros(len(prefixes), np.int64)

    def __len__(self) -> int:
        return len(self._prefixes)

    def uniform(self, low: float, high: float, which: Bools | None = None) -> Floats:
        """(records,) from low (included) to high (excluded); of the others than `which` nothing is drawn."""
        share: Floats = (self._bits(which) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return low + (high - low) * share

    def integer(self, count: Ints | int, which: Bools | None = None) -> Ints:
        """(records,) from 0 to count - 1, of counts below 2**31."""
        bits, counts = self._bits(which), np.asarray(count).astype(np.uint64)
        high, low = bits >> np.uint64(32), bits & np.uint64(0xFFFFFFFF)
        return ((high * counts + (low * counts >> np.uint64(32))) >> np.uint64(32)).astype(np.int64)

    def happens(self, probability: float) -> Bools:
        return self.uniform(0.0, 1.0) < probability

    def _bits(self, which: Bools | None) -> Words:
        drawn = range(len(self)) if which is None else np.flatnonzero(which).tolist()
        sha256, prefixes = hashlib.sha256, self._prefixes
        numbers = self._counts.astype("<u8").tobytes()
        blocks = b"".join([sha256(prefixes[i] + numbers[8 * i : 8 * i + 8]).digest()[:8] for i in drawn])
        self._counts += 1 if which is None else which
        found = np.zeros(len(self), np.uint64)
        found[list(drawn) if which is not None else slice(None)] = np.frombuffer(blocks, "<u8")
        return found


class ManyViewDraws:
    """`ViewDraws` of one view of many records: the same numbers, a property test compares them."""

    def __init__(self, dataset: str, record_keys: Sequence[str], index: int, seed: int) -> None:
        before, after = canonical_json([dataset])[:-1] + b",", b"," + canonical_json([index, seed])[1:-1]
        self._opened = [before + _quoted(key) + after for key in record_keys]

    def __call__(self, purpose: str) -> ManyDraws:
        closed, sha256 = closed_key(purpose), hashlib.sha256
        return ManyDraws([sha256(opened + closed).digest() for opened in self._opened])


def _quoted(key: str) -> bytes:
    """As canonical JSON writes it; most keys need no escapes."""
    is_plain = key.isascii() and key.isprintable() and '"' not in key and "\\" not in key
    return b'"%b"' % key.encode() if is_plain else canonical_json(key)
