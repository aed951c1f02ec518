"""The index at the end of a shard file: offset and length of each row's chunk."""

from __future__ import annotations

import struct
from typing import Any

import crc32c as crc32c_package
import numpy as np
import numpy.typing as npt

from stores.errors import IntegrityError
from stores.format.array_spec import CRC_BYTES, ArraySpec
from stores.shards.zstd_frames import frame_bound

ABSENT = (1 << 64) - 1
"""Offset and length of an absent chunk."""

Index = npt.NDArray[np.uint64]
"""(S, 2): offset and stored length of each row's chunk."""


def crc32c(data: Any, value: int = 0) -> int:
    """CRC-32C of a contiguous buffer, continued from `value`; releases the GIL."""
    return int(crc32c_package.crc32c(data, value))


def empty_index(shard_rows: int) -> Index:
    return np.full((shard_rows, 2), ABSENT, dtype="<u8")


def encode_index(index: Index) -> bytes:
    """The bytes at the end of the shard: the entries, little-endian, and their CRC32C."""
    entries = index.astype("<u8").tobytes()
    return entries + struct.pack("<I", crc32c(entries))


def decode_index(data: bytes, what: str) -> Index:
    """The inverse. Raises IntegrityError, naming the shard as `what`, where the CRC32C differs."""
    entries, (expected,) = data[:-4], struct.unpack("<I", data[-4:])
    found = crc32c(entries)
    if found != expected:
        raise IntegrityError(f"{what}: its index has CRC32C {found:#010x}, expected {expected:#010x}")
    return np.frombuffer(entries, dtype="<u8").reshape(-1, 2)


def fixed_index(shard_rows: int, written: npt.NDArray[np.bool_], stored_row_bytes: int) -> Index:
    """The index of a shard whose chunks all have the same length and are in row order.

    Args:
        written: (rows in this shard,) whether each row holds data; the other places stay empty.
        stored_row_bytes: of a chunk and its CRC32C.
    """
    index = empty_index(shard_rows)
    rows = np.flatnonzero(written)
    index[rows, 0] = rows * stored_row_bytes
    index[rows, 1] = stored_row_bytes
    return index


def planned_bytes(spec: ArraySpec, rows: int) -> int | None:
    """Length of a shard file of `rows` rows; None where it depends on what is compressed."""
    return None if spec.compressed else rows * spec.stored_row_bytes + spec.index_bytes


def wrong_length(spec: ArraySpec, rows: int, file_bytes: int) -> str | None:
    """What is wrong with the length of a shard file of `rows` rows, by its array alone; None for nothing."""
    expected = planned_bytes(spec, rows)
    if expected is None:
        return None if file_bytes >= spec.index_bytes else f"has {file_bytes} bytes, too few for its index"
    return None if file_bytes == expected else f"has {file_bytes} bytes, expected {expected}"


def wrong_index(spec: ArraySpec, index: Index, written: npt.NDArray[np.bool_], file_bytes: int) -> str | None:
    """What is wrong with the index of a shard file, by its array and rows alone; None for nothing.

    Args:
        spec: the sharded array.
        index: of S entries.
        written: (rows in this shard,) whether each row holds data.
        file_bytes: length of the shard file.
    """
    if not spec.compressed:
        expected = fixed_index(len(index), written, spec.stored_row_bytes)
        same = np.array_equal(index, expected)
        return None if same else "has an index of other rows or lengths than were written"
    places = np.zeros(len(index), dtype=bool)
    places[: len(written)] = written
    if not np.array_equal(index[:, 0] != ABSENT, places):
        return "has an index of other rows than were written"
    limit, largest = file_bytes - spec.index_bytes, frame_bound(spec.row_bytes) + CRC_BYTES
    # Python integers: the sum of two uint64 may not fit one.
    for offset, stored in index[places].astype(object).tolist():
        if not (CRC_BYTES < stored <= largest and offset + stored <= limit):
            return f"has a chunk of {stored} bytes at {offset}, outside its bounds"
    return None
