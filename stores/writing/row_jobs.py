"""Work on the arrays of large rows: several rows at once, in threads that all writers of a process share."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from functools import cache

LARGE_BYTES = 128 << 10
"""128 KiB: to check, digest and write less takes no longer than waking a thread."""
TOGETHER_BYTES = 4 << 20
"""4 MiB: what a thread is given at least, where a row has so much: every hand-over wakes two threads."""
_WAITING = 16
"""Jobs of a writer for each thread: all rows of a usual batch, so that a writer is woken once a batch."""

Job = tuple[int, Callable[[], None]]
"""The bytes that it works on, and the work."""


def _together(jobs: Iterable[Job]) -> Iterator[tuple[int, list[Callable[[], None]]]]:
    """Consecutive jobs, joined until they have TOGETHER_BYTES."""
    length, works = 0, list[Callable[[], None]]()
    for each, work in jobs:
        length, works = length + each, [*works, work]
        if length >= TOGETHER_BYTES:
            yield length, works
            length, works = 0, []
    if works:
        yield length, works


def _run_each(works: Sequence[Callable[[], None]]) -> None:
    for work in works:
        work()


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

    def run(self, jobs: Iterable[Job]) -> None:
        """Runs the jobs of a row: small ones together, here if they stay small; others in threads, after a
        wait where too many are running.

        Args:
            jobs: each with the bytes that it works on.

        Raises what these jobs raised or large ones before them.
        """
        for length, works in _together(jobs):
            if not self.is_large(length):
                _run_each(works)
                continue
            while len(self._running) >= self.most:
                self._running.popleft().result()
            self._running.append(_threads().submit(_run_each, works))

    def wait(self) -> None:
        """Returns once all jobs are done. Raises what one of them raised."""
        wait(self._running)  # woken once, and not by every job
        while self._running:
            self._running.popleft().result()

    def end(self) -> None:
        """Returns once no job is running, whatever became of them."""
        for job in self._running:
            job.cancel()
        wait(self._running)
        self._running.clear()
