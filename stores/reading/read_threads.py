"""Reads of a batch on a few threads: preadv and crc32c release the GIL."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol


class RowReader(Protocol):
    """Of one array, as stores.reading.array_reader."""

    def read_row(self, row: int, out: memoryview, /) -> None: ...


Job = tuple[RowReader, int, memoryview]
"""A reader, the bin-local row and the memory to fill."""

_WORTH_THREADS_BYTES = 256 << 10  # for less, waking a thread takes longer than reading


class ReadThreads:
    """A thread pool created on first use and again after a fork; never pickled.

    Args:
        threads: of the pool, the caller's own included.
        worth_bytes: for less, the caller reads alone.
    """

    def __init__(self, threads: int, worth_bytes: int = _WORTH_THREADS_BYTES) -> None:
        self.threads, self._worth_bytes = threads, worth_bytes
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0
        self._lock = threading.Lock()

    def run(self, jobs: Sequence[Job]) -> None:
        """Runs all jobs; raises the first error once every thread has stopped."""
        left = iter(jobs)
        helpers = min(self.threads, len(jobs)) - 1
        if helpers < 1 or sum(len(job[2]) for job in jobs) < self._worth_bytes:
            _work(left)
            return
        pool = self._running_pool()
        running = [pool.submit(_work, left) for _ in range(helpers)]
        try:
            _work(left)
        finally:
            for job in running:
                job.exception()  # wait: nothing may write into the caller's buffers after this returns
        for job in running:
            job.result()

    def start(self, work: Callable[[], None]) -> None:
        """Runs something on one of the threads and does not wait for it."""
        self._running_pool().submit(work)

    def _running_pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="store-read")
                self._pid = os.getpid()
            return self._pool

    def close(self) -> None:
        with self._lock:
            if self._pool is not None and self._pid == os.getpid():
                self._pool.shutdown(wait=False)
            self._pool = None


def _work(jobs: Iterator[Job]) -> None:
    """Runs jobs until none is left; next() on the shared iterator is atomic under the GIL."""
    try:
        for reader, row, out in jobs:
            reader.read_row(row, out)
    except BaseException:
        for _ in jobs:  # the batch has failed: skip the rest
            pass
        raise
