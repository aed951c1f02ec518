"""Subsets of records: a share of them, or those a file names."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from pathlib import Path

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:%|pct)")


def key_order(keys: Iterable[str]) -> list[str]:
    """The keys in the order of their sha256: a shuffle that is the same everywhere and needs no seed."""
    return sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())


def subset_keys(keys: Iterable[str], subset: str) -> frozenset[str]:
    """The keys that a subset keeps.

    A share takes the first records in `key_order`, so that a smaller share lies within a larger one.

    >>> sorted(subset_keys(["a", "b", "c", "d"], "50%") | subset_keys(["a", "b", "c", "d"], "25pct"))
    ['c', 'd']

    Args:
        keys: of all records, each once.
        subset: a share such as `1%` or `1pct`, or the path of a file with one key a line.

    Raises:
        ValueError: a share outside 0 to 100 %, or a file with keys that are not among `keys`, or with none.
        OSError: neither a share nor a readable file.
    """
    ordered = key_order(keys)
    share = _SHARE.fullmatch(subset.strip())
    if share:
        percent = float(share[1])
        if not 0 < percent <= 100:
            raise ValueError(f"subset {subset!r}: expected more than 0 % and at most 100 %")
        return frozenset(ordered[: math.ceil(len(ordered) * percent / 100)])
    path = Path(subset)
    if not path.is_file():
        raise FileNotFoundError(
            f"subset {subset!r} is neither a share such as 1% nor a file with one key a line"
        )
    named = {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    unknown = sorted(named.difference(ordered))
    if unknown or not named:
        found = f"{len(unknown)} keys of no record, such as {unknown[0]!r}" if unknown else "no keys"
        raise ValueError(f"subset file {subset} holds {found}; expected keys such as {min(ordered)!r}")
    return frozenset(named)
