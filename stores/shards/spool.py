"""Spool of a work unit: the chunks of its packed arrays in one file, until the commit packs them.

Chunks stand in the order of their writing, without CRC32Cs, which the unit's receipt holds. At the end stands
an index: for each packed array in the order of the plan, for each row of the unit, offset and length of its
chunk (absent: 2^64-1 twice), little-endian, and the CRC32C of all that. A spool is no part of a store: it
lies under `work/`, readers ignore it, and the committer deletes it.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from stores.errors import IntegrityError
from stores.format.array_spec import CRC_BYTES, ArraySpec
from stores.shards.disk import Files, naming, partial_of, remove_if_there, sync_file, write_all
from stores.shards.shard_file import flat_bytes, stored_chunk
from stores.shards.shard_index import ABSENT, crc32c, decode_index, empty_index, encode_index
from stores.shards.written_digest import ChunkDigests, Hash, chunks_sha256
from stores.work.folder import WORK

SPOOLS = f"{WORK}/spools"
_BUFFER_BYTES = 256 << 10  # 256 KiB: rows of scales have a few kilobytes
_ENTRY_BYTES = 16
_MOST_PIECES = 1024  # IOV_MAX of Linux

Chunks = dict[str, list[bytes | None]]
"""By array, the stored chunk of each row of a unit without its CRC32C; None for a skipped row."""


def spool_path(unit_name: str) -> str:
    """From the root of the store.

    >>> spool_path("512x512-3")
    'work/spools/512x512-3.spool'
    """
    return f"{SPOOLS}/{unit_name}.spool"


@dataclass(frozen=True, slots=True)
class SpoolFigures:
    """Size and checksums of a spool, as its receipt records them."""

    bytes: int
    digest: str
    """SHA-256 in hex over the digest of each chunk, by array and row, and the SHA-256 of the index."""
    crc32c: Mapping[str, tuple[int | None, ...]]
    """By array, of every row's chunk; None for a row without one."""


class SpoolFile:
    """A spool being written, in the order of its rows. Several threads may put rows at once.

    Args:
        hashed: the hash of chunks.
        arrays: the packed arrays of the unit's bin by name.
    """

    def __init__(
        self,
        files: Files,
        hashed: Hash,
        path: Path,
        arrays: Mapping[str, ArraySpec],
        rows: int,
        writer_id: str,
    ) -> None:
        self._files, self._arrays, self._rows = files, arrays, rows
        self.partial = partial_of(path, writer_id)
        self._first = {name: number * rows for number, name in enumerate(arrays)}
        self._index = empty_index(len(arrays) * rows)
        self._crcs: dict[str, list[int | None]] = {name: [None] * rows for name in arrays}
        self._digests = ChunkDigests(hashed)
        self._lock = threading.Lock()
        self._waiting: dict[int, dict[str, memoryview | bytes]] = {}
        """Stored chunks of rows whose turn has not come; none of a skipped row."""
        self._next = self._end = 0
        self._buffer: list[memoryview | bytes] = []
        """Of what is not written yet, before `_end`."""
        self._buffered_bytes = 0
        self._index_bytes = b""
        self._fd: int | None = files.create(self.partial)

    def put(self, position: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Writes the chunks of one row, in the order of the rows: those that come too early, and small ones,
        are copied."""
        chunks: dict[str, memoryview | bytes] = {}
        for name, array in arrays.items():
            spec, entry = self._arrays[name], self._first[name] + position
            data = flat_bytes(spec, array)
            stored = stored_chunk(spec, data)
            crc = self._crcs[name][position] = crc32c(stored)
            if spec.compressed:
                self._digests.take_decoded(entry, data)
            self._digests.take_chunk(entry, stored, struct.pack("<I", crc), is_decoded=not spec.compressed)
            chunks[name] = stored
        self._take(position, chunks)

    def skip(self, position: int) -> None:
        """The row has no chunks."""
        self._take(position, {})

    def _take(self, position: int, chunks: dict[str, memoryview | bytes]) -> None:
        with self._lock:
            is_early = position != self._next
            self._waiting[position] = {n: bytes(c) for n, c in chunks.items()} if is_early else chunks
            while self._next in self._waiting:
                ready, at = self._waiting.pop(self._next), self._end
                for name, stored in ready.items():
                    self._index[self._first[name] + self._next] = at, len(stored)
                    at += len(stored)
                self._append(list(ready.values()))
                self._next += 1

    def _append(self, pieces: Sequence[memoryview | bytes]) -> None:
        length = sum(map(len, pieces))
        self._end += length
        self._buffered_bytes += length
        if self._buffered_bytes < _BUFFER_BYTES:
            self._buffer += [bytes(piece) for piece in pieces]
            return
        self._buffer += pieces
        self._flush()

    def _flush(self) -> None:
        assert self._fd is not None
        pieces, at = [piece for piece in self._buffer if len(piece)], self._end - self._buffered_bytes
        with naming(self.partial):
            for first in range(0, len(pieces), _MOST_PIECES):
                some = pieces[first : first + _MOST_PIECES]
                write_all(self._files, self._fd, some, at)
                at += sum(map(len, some))
        self._buffer, self._buffered_bytes = [], 0

    def content(self, position: int) -> dict[str, bytes]:
        """Digests of the bytes of each array of a row; empty for a skipped row."""
        found = {name: self._digests.decoded.get(first + position) for name, first in self._first.items()}
        return {name: digest for name, digest in found.items() if digest is not None}

    def write_index(self) -> None:
        """Writes the index, the last bytes of the file."""
        self._index_bytes = encode_index(self._index)
        self._append([self._index_bytes])
        self._flush()

    def sync(self) -> None:
        """Waits until the file is on the disk."""
        assert self._fd is not None
        sync_file(self._files, self._fd, self.partial)

    def figures(self) -> SpoolFigures:
        """Size and checksums of the whole file."""
        digest = self._digests.finish(self._index_bytes)
        return SpoolFigures(self._end, digest, {name: tuple(crcs) for name, crcs in self._crcs.items()})

    def close(self) -> None:
        """Closes the file and keeps it."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            self._files.close(fd)

    def discard(self) -> None:
        """Closes the file and deletes it."""
        self.close()
        remove_if_there(self._files, self.partial)


def decode_spool(
    data: bytes, hashed: Hash, names: Sequence[str], rows: int, figures: SpoolFigures, what: str
) -> Chunks:
    """The chunks of a spool, every one compared with the receipt's figures.

    Args:
        data: the whole file.
        hashed: the hash of chunks.
        names: of the packed arrays, in the order of the plan.
        rows: of the unit.
        figures: from its receipt.
        what: names the file in errors.

    Raises IntegrityError for any difference.
    """
    if len(data) != figures.bytes:
        raise IntegrityError(f"{what} has {len(data)} bytes, expected {figures.bytes}")
    length = len(names) * rows * _ENTRY_BYTES + CRC_BYTES
    if len(data) < length:
        raise IntegrityError(f"{what} has {len(data)} bytes, too few for its index")
    index = decode_index(data[-length:], what).astype(object).tolist()  # Python integers: sums may be large
    found: Chunks = {}
    digests = []
    for number, name in enumerate(names):
        found[name] = []
        for (offset, stored), expected in zip(
            index[number * rows : (number + 1) * rows], figures.crc32c[name], strict=True
        ):
            is_absent = offset == ABSENT
            if is_absent != (expected is None) or (not is_absent and offset + stored > len(data)):
                raise IntegrityError(f"{what} has an index of other rows than were written")
            chunk = None if expected is None else data[offset : offset + stored]
            found[name].append(chunk)
            if chunk is None or expected is None:
                continue
            if crc32c(chunk) != expected:
                raise IntegrityError(f"{what}: a chunk of {name} does not have its CRC32C")
            digests.append(hashed(chunk + struct.pack("<I", expected)).digest())
    if chunks_sha256(digests, data[-length:]) != figures.digest:
        raise IntegrityError(f"{what} was changed: its digest is not the receipt's")
    return found


def is_empty(crcs: Mapping[str, Sequence[int | None]]) -> bool:
    """Whether no row of a unit has a chunk, as where all were skipped."""
    return not any(crc is not None for values in crcs.values() for crc in values)
