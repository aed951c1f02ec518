"""The arrays of a committed store by bin and name: opened when first read, then kept."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.format.array_spec import ArraySpec
from stores.format.arrays import bin_tables, sharded_arrays
from stores.format.row_table import WRITTEN
from stores.reading.array_reader import (
    ArrayReader,
    CompressedArrayReader,
    OpenShards,
    RowJob,
    Verify,
    open_file_limit,
)
from stores.reading.committed_store import CommittedStore
from stores.reading.read_threads import ReadThreads
from stores.reading.remote_reads import RemoteReads

Array = npt.NDArray[Any]


class StoreArrays:
    """Readers and tables of the arrays of one store, and the threads that read them.

    A name is the array's path below its bin's folder, such as `levels/p4/q`.
    """

    def __init__(self, committed: CommittedStore, verify: Verify, threads: int) -> None:
        self._committed, self._verify = committed, verify
        self._shards = OpenShards(committed.folder, open_file_limit())
        self._readers: dict[tuple[int, str], ArrayReader] = {}
        self._tables: dict[tuple[int, str], Array] = {}
        self._threads = ReadThreads(threads)
        self._remote = RemoteReads(self._threads) if committed.folder.is_remote else None
        self._lock = threading.RLock()
        self._closed = False

    @property
    def is_closed(self) -> bool:
        return self._closed

    def check_open(self) -> None:
        """Raises ValueError once the store is closed."""
        if self._closed:
            raise ValueError(f"{self._committed.name} was closed: open_store(path) opens it again")

    def reader(self, bin_index: int, name: str) -> ArrayReader:
        """The reader of a sharded array. Raises IntegrityError if its table of CRC32C is damaged."""
        self.check_open()
        reader = self._readers.get((bin_index, name))
        return reader if reader is not None else self._open_reader(bin_index, name)

    def _open_reader(self, bin_index: int, name: str) -> ArrayReader:
        with self._lock:
            plan = self._committed.plan
            spec = sharded_arrays(plan, bin_index)[name]
            self._committed.folder.will_read(
                spec.path, spec.shape[0] * spec.stored_row_bytes, is_packed=spec.packed
            )
            crcs = self.table(bin_index, spec.crc_path.removeprefix(f"bins/{plan.bins[bin_index].name}/"))
            written = self._committed.outcome[plan.bin_rows[bin_index]] == WRITTEN
            kind = CompressedArrayReader if spec.compressed else ArrayReader
            reader = kind(self._committed.name, self._shards, spec, crcs, written, self._verify)
            return self._readers.setdefault((bin_index, name), reader)

    def table(self, bin_index: int, name: str) -> Array:
        """A table of a bin. Raises IntegrityError if it is damaged."""
        with self._lock:
            if (bin_index, name) not in self._tables:
                spec = bin_tables(self._committed.plan, bin_index)[name]
                self._tables[bin_index, name] = self._committed.table(spec)
            return self._tables[bin_index, name]

    def jobs(self, bin_index: int, name: str, local: Sequence[int], target: Array) -> list[RowJob]:
        """The reads that fill the contiguous `target` (rows, ...) with these bin-local rows."""
        reader = self.reader(bin_index, name)
        size = reader.spec.row_bytes
        flat = reader.spec.stored(target).reshape(-1).view(np.uint8).data
        return [(reader, row, flat[i * size : (i + 1) * size]) for i, row in enumerate(local)]

    def run(self, jobs: Sequence[RowJob]) -> None:
        """Runs the reads on the store's threads, or raises the first error."""
        if self._remote is None:
            self._threads.run(jobs)
        else:
            self._remote.run(jobs)

    def prefetch(self, bin_index: int, names: Sequence[str], local: Sequence[int]) -> None:
        """Starts to fetch bin-local rows of these arrays of a store at a URL, and returns."""
        if self._remote is not None:
            nowhere = memoryview(b"")
            readers = [self.reader(bin_index, name) for name in names]
            self._remote.prefetch([(reader, row, nowhere) for reader in readers for row in local])

    def read(self, bin_index: int, name: str, local: Sequence[int]) -> Array:
        """Bin-local rows of one array, in fresh memory."""
        target = first_rows(None, len(local), self.reader(bin_index, name).spec)
        self.run(self.jobs(bin_index, name, local, target))
        return target

    def close(self) -> None:
        self._closed = True
        self._threads.close()
        if self._remote is not None:
            self._remote.close()
        self._readers.clear()
        self._shards.clear()
        self._committed.folder.close()


def first_rows(given: Array | None, rows: int, spec: ArraySpec) -> Array:
    """Contiguous memory for `rows` rows, fresh or the caller's. Raises ValueError if it does not fit."""
    if given is None:
        return spec.empty(rows)
    fits = given.dtype == spec.dtype and given.shape[1:] == spec.row_shape and len(given) >= rows
    if not fits or not spec.stored(given).flags.c_contiguous or not given.flags.writeable:
        shape = f"({rows} or more, {', '.join(map(str, spec.row_shape))})"
        raise ValueError(
            f"out for {spec.path} is {given.dtype} {given.shape}, expected writeable C-contiguous "
            f"{spec.dtype} {shape}{' of memory (rows, [time,] channel, y, x)' * spec.channel_first}"
        )
    return given[:rows]
