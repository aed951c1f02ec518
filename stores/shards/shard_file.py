"""A shard file being written: chunks in the order of arrival, the index last."""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.errors import PlanError
from stores.format.array_spec import CRC_BYTES, ArraySpec
from stores.shards.disk import Files, naming, partial_of, remove_if_there, sync_file, write_all
from stores.shards.shard_index import crc32c, empty_index, encode_index
from stores.shards.written_digest import ChunkDigests, Hash, WrittenDigest
from stores.shards.zstd_frames import encode_frame

_WRITEBACK_BYTES = 8 << 20
"""8 MiB, of which each is sent to the disk at once: four of the largest folios of Linux's page cache."""


@dataclass(frozen=True, slots=True)
class FileFigures:
    """Size and checksums of one shard file, as its receipt records them."""

    bytes: int
    digest: str
    """SHA-256 in hex, of the file or with `chunk-digests` of its chunks, see stores.shards.written_digest."""
    crc32c: tuple[int | None, ...]
    """Of every row's stored chunk; None for a row without one."""


def flat_bytes(spec: ArraySpec, array: npt.NDArray[Any]) -> memoryview:
    """The bytes of a row as its chunk holds them, a copy only where they lie otherwise."""
    return np.ascontiguousarray(spec.stored(array)).reshape(-1).view(np.uint8).data


def check_row(spec: ArraySpec, array: npt.NDArray[Any]) -> None:
    """Raises PlanError for a row of another type or shape than the plan's."""
    if spec.ragged:  # the caller compares its shape with that of its target
        return
    if array.dtype != spec.dtype or array.shape != spec.row_shape:
        raise PlanError(
            f"{spec.path}: a row is {array.dtype} {array.shape}, expected {spec.dtype} {spec.row_shape}"
        )


def stored_chunk(spec: ArraySpec, data: memoryview) -> memoryview | bytes:
    """What is stored of the bytes of a row, without the CRC32C."""
    if not spec.compressed:
        return data
    flat = np.frombuffer(data, dtype=np.uint8)
    if len(flat) < spec.row_bytes:
        flat = np.concatenate([flat, np.zeros(spec.row_bytes - len(flat), np.uint8)])
    return encode_frame(flat, spec.zstd_level)


class ShardFile:
    """A shard whose chunks have one length: offsets are known, so rows may come in any order.

    With the feature `chunk-digests` several threads may put rows at once.

    Args:
        digester: of older stores, see WrittenDigest; with `chunk-digests` the hash of chunks.
    """

    def __init__(
        self, files: Files, digester: Executor | Hash, path: Path, spec: ArraySpec, rows: int, writer_id: str
    ) -> None:
        self.spec, self.path, self.rows = spec, path, rows
        self.partial = partial_of(path, writer_id)
        self._files = files
        self._stored_row_bytes = spec.stored_row_bytes
        self._index = empty_index(spec.shard_rows or 1)
        self._crcs: list[int | None] = [None] * rows
        self._whole = WrittenDigest(digester) if isinstance(digester, Executor) else None
        self._chunks = None if isinstance(digester, Executor) else ChunkDigests(digester)
        self._lock = threading.Lock()
        self._passed: set[int] = set()
        """Rows written or skipped beyond the first one that is neither."""
        self._next = self._writeback_end = 0
        self._index_bytes = b""
        self._fd: int | None = files.create(self.partial)

    def put(self, position: int, array: npt.NDArray[Any]) -> None:
        """Writes the row at this position of the shard; without `chunk-digests` its memory must not change
        before `wait` returns."""
        data = flat_bytes(self.spec, array)
        if self.spec.compressed and self._chunks is not None:
            self._chunks.take_decoded(position, data)
        self._take(position, stored_chunk(self.spec, data))

    def skip(self, position: int) -> None:
        """Leaves a hole: zero bytes and an absent index entry."""
        self._pass(position)

    def _take(self, position: int, stored: memoryview | bytes) -> None:
        self._write(position, stored, position * self._stored_row_bytes)
        self._pass(position)

    def _pass(self, position: int) -> None:
        """Starts writing to the disk what lies before the first row that is neither written nor skipped."""
        with self._lock:
            self._passed.add(position)
            while self._next in self._passed:
                self._passed.remove(self._next)
                self._next += 1
            self._start_writeback((self._next - 1) * self._stored_row_bytes)

    def _write(self, position: int, stored: memoryview | bytes, offset: int) -> None:
        crc = crc32c(stored)
        crc_bytes = struct.pack("<I", crc)
        if self._chunks is not None:
            self._chunks.take_chunk(position, stored, crc_bytes, is_decoded=not self.spec.compressed)
        self._write_at(offset, stored, crc_bytes)
        self._crcs[position] = crc
        self._index[position] = offset, len(stored) + CRC_BYTES

    def _write_at(self, offset: int, *pieces: memoryview | bytes) -> None:
        if self._whole is not None:
            self._whole.take(offset, pieces)
        with naming(self.partial):
            write_all(self._files, self._open_fd(), pieces, offset)

    def _start_writeback(self, end: int) -> None:
        """One row behind: writing to a page that is on its way to the disk would block."""
        end -= end % _WRITEBACK_BYTES
        if end > self._writeback_end:
            self._files.start_writeback(self._open_fd(), self._writeback_end, end - self._writeback_end)
            self._writeback_end = end

    def wait(self) -> None:
        """Returns once the memory of all rows put so far may be reused."""
        if self._whole is not None:
            self._whole.wait()

    @property
    def content(self) -> Mapping[int, bytes]:
        """Digests of the bytes of each row put, by position; empty in older stores."""
        return {} if self._chunks is None else self._chunks.decoded

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError(f"{self.path} is finished or was discarded")
        return self._fd

    def _end(self) -> int:
        return self.rows * self.spec.stored_row_bytes

    def write_index(self) -> None:
        """Writes the index, the last bytes of the file."""
        self._index_bytes = encode_index(self._index)
        self._write_at(self._end(), self._index_bytes)

    def sync(self) -> None:
        """Waits until the file is on the disk."""
        sync_file(self._files, self._open_fd(), self.partial)

    def figures(self) -> FileFigures:
        """Size and checksums of the whole file."""
        if self._chunks is not None:
            length, digest = self._end() + len(self._index_bytes), self._chunks.finish(self._index_bytes)
        else:
            assert self._whole is not None
            with naming(self.partial):
                length, digest = self._whole.finish(partial(self._files.read, self._open_fd()))
        return FileFigures(length, digest, tuple(self._crcs))

    def close(self) -> None:
        """Closes the file and keeps it."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            self._files.close(fd)

    def discard(self) -> None:
        """Closes the file and deletes it."""
        self.close()
        remove_if_there(self._files, self.partial)


class CompressedShardFile(ShardFile):
    """A shard of zstd frames in row order, so that its bytes do not depend on the order of arrival."""

    def __init__(
        self, files: Files, digester: Executor | Hash, path: Path, spec: ArraySpec, rows: int, writer_id: str
    ) -> None:
        super().__init__(files, digester, path, spec, rows, writer_id)
        self._waiting: dict[int, memoryview | bytes] = {}
        self._offset = 0

    def skip(self, position: int) -> None:
        self._take(position, b"")

    def _take(self, position: int, stored: memoryview | bytes) -> None:
        with self._lock:
            self._waiting[position] = stored
            while self._next in self._waiting:
                ready = self._waiting.pop(self._next)
                if ready:
                    self._write(self._next, ready, self._offset)
                    self._start_writeback(self._offset)
                    self._offset += len(ready) + CRC_BYTES
                self._next += 1

    def _end(self) -> int:
        return self._offset
