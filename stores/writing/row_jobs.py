"""Work on large arrays of rows: several at once, in threads that all writers of a process share."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from functools import cache

LARGE_BYTES = 128 << 10
"""128 KiB: to check, digest and write less takes no longer than waking a thread."""
_WAITING = 4
"""Jobs of a writer for each thread."""


@cache
def _threads() -> Executor:
    """One thread a core, at least two: numpy, CRC, digest and write free the interpreter."""
    return ThreadPoolExecutor(max(2, len(os.sched_getaffinity(0))), "store-row")


class RowJobs:
    """The running jobs of one writer. Not thread-safe.

    Args:
        in_order: run every job at once, in the calling thread, as the digests of older stores need it.
    """

    def __init__(self, *, in_order: bool = False) -> None:
        self._in_order = in_order
        self._running: deque[Future[None]] = deque()
        self.most = _WAITING * len(os.sched_getaffinity(0))
        """Jobs that are running or wait for a thread."""

    def is_large(self, length: int) -> bool:
        """Whether a job on so many bytes is left to another thread."""
        return length >= LARGE_BYTES and not self._in_order

    def run(self, length: int, job: Callable[[], None]) -> None:
        """Runs a small job; starts a large one, after a wait where too many are running.

        Args:
            length: bytes that the job works on.

        Raises what this job raised or a large one before it.
        """
        if not self.is_large(length):
            job()
            return
        while len(self._running) >= self.most:
            self._running.popleft().result()
        self._running.append(_threads().submit(job))

    def wait(self) -> None:
        """Returns once all jobs are done. Raises what one of them raised."""
        while self._running:
            self._running.popleft().result()

    def end(self) -> None:
        """Returns once no job is running, whatever became of them."""
        for job in self._running:
            job.cancel()
        wait(self._running)
        self._running.clear()
