"""Reads rows of one sharded array from its shard files straight into the caller's memory.

Trusted are the lengths and offsets that follow from the plan, and the table of CRC32C bound by the manifest.
A shard's index is read once and compared with its own CRC32C and, where all chunks have one length, with the
only index that is possible.
"""

from __future__ import annotations

import errno
import resource
import threading
from typing import Literal

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from stores.errors import IntegrityError, RowSkipped
from stores.format.array_spec import CRC_BYTES, ArraySpec
from stores.format.bounded_files import OpenFile, StoreFolder
from stores.shards.shard_index import Index, decode_index, planned_bytes, wrong_index, wrong_length
from stores.shards.zstd_frames import decode_frame

Verify = Literal["always", "first-epoch", "off"]
VERIFY_MODES: tuple[Verify, ...] = ("always", "first-epoch", "off")


def open_file_limit() -> int:
    """Shard files a store keeps open: a quarter of the process's limit, since stores are opened in pairs."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 4096 if soft == resource.RLIM_INFINITY else max(16, min(4096, soft // 4))


class OpenShards:
    """Open shard files, up to a limit; the one opened first is closed first."""

    def __init__(self, folder: StoreFolder, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._open: dict[str, OpenFile] = {}
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}

    def get(self, path: str) -> OpenFile | None:
        return self._open.get(path)

    def open(self, path: str, expected_bytes: int | None = None) -> OpenFile:
        """The open file, opened by the first of several threads. Args and errors as StoreFolder.open."""
        with self._lock:
            opening = self._opening.setdefault(path, threading.Lock())
        with opening:
            return self._open.get(path) or self.open_again(path, expected_bytes)

    def open_again(self, path: str, expected_bytes: int | None = None) -> OpenFile:
        """The same with a fresh descriptor."""
        opened = self._folder.open(path, expected_bytes)
        with self._lock:
            self._open.pop(path, None)
            while len(self._open) >= self._limit:
                del self._open[next(iter(self._open))]
            self._open[path] = opened
        return opened

    def clear(self) -> None:
        with self._lock:
            self._open.clear()


class ArrayReader:
    """Reads rows of a sharded array of uncompressed chunks. Safe for any number of threads.

    Args:
        store: the path of the store, for messages.
        shards: the open files, shared by all arrays.
        spec: the array.
        crcs: uint32 (rows,) from the table beside the array.
        written: bool (rows,) whether each row holds data.
        verify: when a row's CRC32C is compared: on every read, on its first, or never.
    """

    def __init__(
        self,
        store: str,
        shards: OpenShards,
        spec: ArraySpec,
        crcs: npt.NDArray[np.uint32],
        written: npt.NDArray[np.bool_],
        verify: Verify,
    ) -> None:
        self.spec, self._store, self._shards, self._written = spec, store, shards, written
        self._shard_rows, self._stored_bytes = spec.shard_rows or 1, spec.stored_row_bytes
        self._paths: dict[int, str] = {}
        self._checked: dict[int, Index | None] = {}
        self._crcs = np.ascontiguousarray(crcs, dtype=np.uint32).data
        # None: every row is due on every read, without looking it up
        due = {"always": None, "first-epoch": b"\1", "off": b"\0"}[verify]
        self._due = None if due is None else bytearray(due * len(crcs))

    def read_row(self, row: int, out: memoryview, /) -> None:
        """Fills `out`, the flat bytes of one row.

        Args:
            row: bin-local.
            out: exactly as long as a row.

        Raises:
            IntegrityError: the shard is missing, shortened or not what was written; names it and the row.
            RowSkipped: the row was never written.
            OSError: the disk failed.
        """
        shard, position = divmod(row, self._shard_rows)
        opened = self._open_shard(row, shard)
        offset = position * (len(out) + CRC_BYTES)
        try:
            length = opened.read_into(out, offset)
        except OSError as error:
            length = self._read_again(error, row, shard, out, offset)
        if length != len(out):
            self._read_rest(opened, row, out, offset, length)
        if self._due is None or self._due[row]:
            self._check(row, out)

    def place(self, row: int) -> tuple[OpenFile, int, int]:
        """The shard file of a row, and the first byte and length of its chunk, CRC32C included.

        Raises as read_row.
        """
        shard, position = divmod(row, self._shard_rows)
        return self._open_shard(row, shard), position * self._stored_bytes, self._stored_bytes

    def shard_of(self, row: int) -> int:
        """The shard of a row in its bin."""
        return row // self._shard_rows

    def is_open(self, row: int) -> bool:
        """Whether `place` needs no reading."""
        shard = row // self._shard_rows
        return shard in self._checked and self._shards.get(self._paths[shard]) is not None

    def opened(self, row: int) -> OpenFile | None:
        """The shard file of a row, where it is open."""
        return self._shards.get(self.spec.chunk_file(row // self._shard_rows))

    def planned_place(self, row: int) -> tuple[OpenFile, int, int] | None:
        """As `place`, without reading the shard's index; None where only the index says it."""
        shard, position = divmod(row, self._shard_rows)
        return self._open_file(row, shard), position * self._stored_bytes, self._stored_bytes

    def _open_shard(self, row: int, shard: int) -> OpenFile:
        if shard in self._checked:
            opened = self._shards.get(self._paths[shard])
            if opened is not None and self._written[row]:
                return opened
        opened = self._open_file(row, shard)
        if shard not in self._checked:
            self._checked[shard] = self._read_index(opened, shard)
        return opened

    def _open_file(self, row: int, shard: int) -> OpenFile:
        if not self._written[row]:
            raise RowSkipped(f"{self.where(row)} was skipped: it holds no data")
        path = self._paths.setdefault(shard, self.spec.chunk_file(shard))
        return self._shards.open(path, planned_bytes(self.spec, len(self._rows_of(shard))))

    def _rows_of(self, shard: int) -> range:
        """Bin-local rows of a shard."""
        return range(self.spec.shape[0])[shard * self._shard_rows :][: self._shard_rows]

    def _read_index(self, opened: OpenFile, shard: int) -> Index | None:
        """The shard's index, checked; None if it follows from the plan and need not be kept."""
        self._checked_index(opened, shard)
        return None

    def _checked_index(self, opened: OpenFile, shard: int) -> Index:
        rows = self._rows_of(shard)
        if (wrong := wrong_length(self.spec, len(rows), opened.size)) is not None:
            raise self._damage(shard, wrong)
        length = self.spec.index_bytes
        data = opened.read(length, opened.size - length)
        if len(data) != length:
            raise self._damage(shard, f"has {opened.size} bytes, too few for its index")
        index = decode_index(data, f"{self._store}: {self.spec.chunk_file(shard)}")
        written = self._written[rows.start : rows.stop]
        if (wrong := wrong_index(self.spec, index, written, opened.size)) is not None:
            raise self._damage(shard, wrong)
        return index

    def _read_again(self, error: OSError, row: int, shard: int, out: memoryview, offset: int) -> int:
        """Reads again with a fresh descriptor if the first one is stale, as happens on NFS."""
        if error.errno != errno.ESTALE:
            raise error
        return self._shards.open_again(self._paths[shard]).read_into(out, offset)

    def _read_rest(self, opened: OpenFile, row: int, out: memoryview, offset: int, length: int) -> None:
        """Reads the rest after a short read, which is legal; raises at the end of the file."""
        while length < len(out):
            more = opened.read_into(out[length:], offset + length)
            if more == 0:
                raise IntegrityError(f"{self.where(row)} is incomplete: its shard was truncated")
            length += more

    def check(self, row: int, stored: memoryview) -> None:
        """Compares a row with its CRC32C where that is due. Raises IntegrityError."""
        if self._due is None or self._due[row]:
            self._check(row, stored)

    def _check(self, row: int, stored: memoryview) -> None:
        found = crc32c(stored)
        if found != self._crcs[row]:
            raise IntegrityError(
                f"{self.where(row)} has CRC32C {found:#010x}, the store's table says {self._crcs[row]:#010x}"
            )
        if self._due is not None:
            self._due[row] = 0

    def where(self, row: int) -> str:
        """Store, array, shard and row, for messages."""
        return f"{self._store}: {self.spec.path}, shard {row // self._shard_rows}, row {row} of its bin"

    def _damage(self, shard: int, what: str) -> IntegrityError:
        first = shard * self._shard_rows
        last = min(first + self._shard_rows, self.spec.shape[0]) - 1
        return IntegrityError(
            f"{self._store}: {self.spec.path}, shard {shard} (rows {first} to {last} of its bin) {what}"
        )


class CompressedArrayReader(ArrayReader):
    """The same for zstd frames; the index gives their places, checked against the bounds of file and plan."""

    def read_row(self, row: int, out: memoryview, /) -> None:
        shard, position = divmod(row, self._shard_rows)
        opened = self._open_shard(row, shard)
        index = self._checked[shard]
        assert index is not None
        offset, stored = (int(value) for value in index[position])
        frame = memoryview(bytearray(stored - CRC_BYTES))
        try:
            length = opened.read_into(frame, offset)
        except OSError as error:
            length = self._read_again(error, row, shard, frame, offset)
        if length != len(frame):
            self._read_rest(opened, row, frame, offset, length)
        if self._due is None or self._due[row]:
            self._check(row, frame)
        decode_frame(frame, np.frombuffer(out, dtype=np.uint8), self.where(row))

    def planned_place(self, row: int) -> tuple[OpenFile, int, int] | None:
        return None

    def place(self, row: int) -> tuple[OpenFile, int, int]:
        shard, position = divmod(row, self._shard_rows)
        opened, index = self._open_shard(row, shard), self._checked[shard]
        assert index is not None
        return opened, int(index[position][0]), int(index[position][1])

    def _read_index(self, opened: OpenFile, shard: int) -> Index | None:
        return self._checked_index(opened, shard)


RowJob = tuple[ArrayReader, int, memoryview]
"""A reader, the bin-local row and the memory to fill."""
