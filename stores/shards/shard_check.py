"""One shard file compared with its receipt."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from stores.errors import IntegrityError
from stores.format.array_spec import CRC_BYTES, ArraySpec
from stores.format.bounded_files import OpenFile, StoreFolder
from stores.shards.shard_file import FileFigures
from stores.shards.shard_index import ABSENT, crc32c, decode_index

_PIECE_BYTES = 1 << 20  # 1 MiB


def check_shard_file(
    folder: StoreFolder, spec: ArraySpec, path: str, figures: FileFigures, *, full: bool
) -> int:
    """Compares a file's length and index, with `full` also every chunk's CRC32C and its sha256.

    Returns the bytes read.

    Raises IntegrityError, naming the file, for any difference.
    """
    opened = folder.open(path)
    what = f"{folder.path}: {path}"
    if opened.size != figures.bytes:
        raise IntegrityError(f"{what} has {opened.size} bytes, expected {figures.bytes}")
    tail = os.pread(opened.fd, spec.index_bytes, max(0, opened.size - spec.index_bytes))
    if len(tail) != spec.index_bytes:
        raise IntegrityError(f"{what} has {opened.size} bytes, too few for its index")
    index = decode_index(tail, what).tolist()
    if not full:
        return len(tail)
    digest = hashlib.sha256()
    for piece in _pieces(opened, 0, opened.size):
        digest.update(piece)
    if digest.hexdigest() != figures.sha256:
        raise IntegrityError(f"{what} was changed: its sha256 is not the receipt's")
    for row, (expected, (offset, stored)) in enumerate(zip(figures.crc32c, index, strict=False)):
        if (expected is None) != (offset == ABSENT):
            raise IntegrityError(
                f"{what}: index and receipt differ in whether row {row} of the shard was written"
            )
        if expected is not None and _crc(opened, offset, stored - CRC_BYTES) != expected:
            raise IntegrityError(f"{what}: the chunk of row {row} of the shard does not have its CRC32C")
    return opened.size


def _pieces(opened: OpenFile, start: int, length: int) -> Iterator[bytes]:
    at, stop = start, min(start + length, opened.size)
    while at < stop and (piece := os.pread(opened.fd, min(_PIECE_BYTES, stop - at), at)):
        yield piece
        at += len(piece)


def _crc(opened: OpenFile, offset: int, length: int) -> int:
    value = 0
    for piece in _pieces(opened, offset, length):
        value = crc32c(piece, value)
    return value
