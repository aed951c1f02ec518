"""Ways to damage a file of a store, some with the bytes of another file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Damage = Callable[[Path, Path], None]
"""Takes the file to damage and another file of the same kind."""


def overwrite(file: Path, data: bytes) -> None:
    """Overwrites in place, so that a reader with the file open sees it too."""
    with open(file, "r+b") as opened:
        opened.write(data)
        opened.truncate()


def flip(at: int) -> Damage:
    """Flips one bit of the byte at this place, counted from the end if negative."""

    def damage(file: Path, other: Path) -> None:
        data = bytearray(file.read_bytes())
        data[at] ^= 1 << at % 8
        overwrite(file, data)

    return damage


def delete(file: Path, other: Path) -> None:
    file.unlink()


def empty(file: Path, other: Path) -> None:
    os.truncate(file, 0)


def shorten(file: Path, other: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def halve(file: Path, other: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def lengthen(file: Path, other: Path) -> None:
    overwrite(file, file.read_bytes() + b"\0")


def clear(file: Path, other: Path) -> None:
    """The right length, all zeros, as some file systems leave after a crash."""
    overwrite(file, bytes(file.stat().st_size))


def copy(file: Path, other: Path) -> None:
    """The other file's bytes, in place."""
    overwrite(file, other.read_bytes())


def replace(file: Path, other: Path) -> None:
    """The other file's bytes, as a new file of this name."""
    new = file.with_name("new")
    new.write_bytes(other.read_bytes())
    new.rename(file)


def swap(file: Path, other: Path) -> None:
    """Exchanges both files' content, in place."""
    mine, others = file.read_bytes(), other.read_bytes()
    overwrite(file, others)
    overwrite(other, mine)


@dataclass(frozen=True, slots=True)
class ShardFault:
    """Damage to a shard file, and which checks must find it."""

    damage: Damage
    source: str = "foreign"
    """Where the other file is from: a `foreign` store of equal geometry, a `stale` extraction of the same
    plan, the `next` shard of the same array, or the `twin`, the same shard of a level of equal shape."""
    reads: bool = True
    """Whether a store opened afterwards must refuse a row."""
    quick: bool = False
    """Whether quick verification, which looks at lengths and indexes, finds it."""


SHARD_FAULTS = {
    "deleted": ShardFault(delete, quick=True),
    "empty": ShardFault(empty, quick=True),
    "a byte short": ShardFault(shorten, quick=True),
    "half of it": ShardFault(halve, quick=True),
    "a byte long": ShardFault(lengthen, quick=True),
    "zeros": ShardFault(clear, quick=True),
    "data flipped": ShardFault(flip(0)),
    "index flipped": ShardFault(flip(-4 - 16), quick=True),
    "length in the index flipped": ShardFault(flip(-4 - 8), quick=True),
    "crc of the index flipped": ShardFault(flip(-1), quick=True),
    "foreign in place": ShardFault(copy),
    "foreign": ShardFault(replace),
    "stale in place": ShardFault(copy, "stale"),
    "stale": ShardFault(replace, "stale"),
    "swapped": ShardFault(swap, "next"),
    "next shard's": ShardFault(copy, "next"),
}
TWIN_FAULTS = {
    "levels swapped": ShardFault(swap, "twin"),
    "other level's": ShardFault(copy, "twin"),
}
SMALL_FILE_FAULTS: dict[str, Damage] = {
    "deleted": delete,
    "empty": empty,
    "a byte short": shorten,
    "a byte long": lengthen,
    "zeros": clear,
    "first byte flipped": flip(0),
    "last byte flipped": flip(-1),
    "foreign": copy,
}
