"""Runs several writers with a chosen interleaving of their file operations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tests.faults.faulty_files import Fault, FaultyFiles, Killed

T = TypeVar("T")
Choose = Callable[[Sequence[int], int], int]
"""Takes the writers that are not done and how many operations were done; returns whose turn it is."""


class Turns:
    """One thread a writer; only one runs at a time, up to its next file operation."""

    def __init__(self, writers: int) -> None:
        self._go = [threading.Lock() for _ in range(writers)]
        self._arrived = threading.Lock()
        for lock in (*self._go, self._arrived):
            lock.acquire()  # each is released once for each time it is waited for

    def wait(self, writer: int) -> None:
        """Called by a writer before each operation."""
        self._arrived.release()
        self._go[writer].acquire()

    def run(self, jobs: Sequence[Callable[[], Any]], choose: Choose) -> list[Any]:
        """Runs all jobs; returns what each returned, None for a killed one, or raises the first error."""
        results: list[Any] = [None] * len(jobs)
        errors: list[BaseException] = []
        alive = list(range(len(jobs)))

        def work(writer: int) -> None:
            try:
                self.wait(writer)
                results[writer] = jobs[writer]()
            except Killed:
                pass
            except BaseException as error:
                errors.append(error)
            finally:
                alive.remove(writer)
                self._arrived.release()

        for writer in list(alive):
            threading.Thread(target=work, args=(writer,), daemon=True).start()
            self._arrived.acquire()
        step = 0
        while alive:
            self._go[choose(alive, step)].release()
            self._arrived.acquire()
            step += 1
        if errors:
            raise errors[0]
        return results


class SteppedFiles(FaultyFiles):
    """File operations of one of several writers, each in its turn."""

    def __init__(self, turns: Turns, writer: int, faults: Mapping[int, Fault] | None = None) -> None:
        super().__init__(faults)
        self._turns, self._writer = turns, writer

    def _step(
        self,
        name: str,
        run: Callable[[], T],
        shortened: Callable[[], T] | None = None,
        *,
        changes: bool = False,
    ) -> T:
        self._turns.wait(self._writer)
        return super()._step(name, run, shortened, changes=changes)


def switch_once(first: int, at: int) -> Choose:
    """`first` does `at` operations, the others run to their ends, then `first` does."""
    left = at

    def choose(alive: Sequence[int], step: int) -> int:
        nonlocal left
        others = [writer for writer in alive if writer != first]
        if first in alive and (left > 0 or not others):
            left -= 1
            return first
        return others[0]

    return choose
