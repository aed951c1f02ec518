"""run.lock: one process at a time writes a run's folder.

The holder rewrites a counter in it, so that a process on another machine, which cannot look the holder up,
sees by its own clock whether it still lives. On the same machine a dead holder is known at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from pipelines.errors import UsageError, WorkFailed
from stores.work.holder import Holder, is_alive, is_here, read_holder, this_process, write_holder

logger = logging.getLogger(__name__)

LOCK = "run.lock"
BEAT_S = 15.0
"""Seconds between two rewritings of the counter."""
PATIENCE_S = 120.0
"""Seconds the counter must stand still before the lock of another machine is taken over."""
_LOOK_S = 5.0
"""Seconds between two looks at the counter."""


class RunLocked(UsageError):
    """Another process writes the run."""


class RunLockLost(WorkFailed):
    """Another process took the run over: this one must not write any more."""


class RunLock:
    """The lock of one run's folder, held from `__enter__` to `__exit__`.

    Args:
        folder: of the run; must exist.
        take_over: take the lock whoever holds it.
        clock, sleep: time in seconds, for tests.
        beat_s: see BEAT_S; 0 for a counter that is never rewritten.
    """

    def __init__(
        self,
        folder: Path,
        *,
        take_over: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        beat_s: float = BEAT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.path = folder / LOCK
        self._take_over, self._clock, self._sleep = take_over, clock, sleep
        self._beat_s, self._patience_s = beat_s, patience_s
        self._holder = this_process()
        self._descriptor: int | None = None
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> RunLock:
        """Raises RunLocked, naming the other process, where the run is held."""
        while not self._create():
            self._free_or_refuse()
        if self._beat_s:
            self._beating = threading.Thread(target=self._beat_until_ended, name="run-lock", daemon=True)
            self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        if self._descriptor is not None:
            if self._is_held():
                self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def check(self) -> None:
        """Raises RunLockLost where another process holds the lock now, or nobody does."""
        if self._is_held():
            return
        other = read_holder(self.path)
        who = f"{other.describe()} has taken it over" if other else f"{self.path} is gone"
        raise RunLockLost(f"{self.path.parent} is no longer written by this process: {who}")

    def beat(self) -> None:
        """Rewrites the counter. Through the open file: a lock that was taken over is another file."""
        if self._descriptor is None:
            return
        self._holder = replace(self._holder, counter=self._holder.counter + 1)
        # A lost or full disk: the next beat may succeed, and `check` finds a lock that is gone.
        with contextlib.suppress(OSError):
            write_holder(self._descriptor, self._holder)

    def _beat_until_ended(self) -> None:
        while not self._ended.wait(self._beat_s):
            self.beat()

    def _create(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        write_holder(descriptor, self._holder)
        self._descriptor = descriptor
        return True

    def _is_held(self) -> bool:
        """Whether the file at the path is still the one that was created."""
        if self._descriptor is None:
            return False
        try:
            there, mine = self.path.stat(), os.fstat(self._descriptor)
        except OSError:  # gone, or, over NFS, a stale handle
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def _free_or_refuse(self) -> None:
        """Removes the lock of a holder that is gone. Raises RunLocked where it is not."""
        holder = read_holder(self.path)
        if not self.path.exists():
            return
        if self._take_over:
            logger.warning("%s: taken over from %s", self.path.parent, holder.describe() if holder else "?")
        elif holder is not None and is_here(holder):
            if is_alive(holder):
                raise self._refusal(holder)
            logger.info("%s: %s has ended; its lock is taken over", self.path.parent, holder.describe())
        else:
            self._watch(holder)
        self._remove(holder)

    def _watch(self, holder: Holder | None) -> None:
        """Returns when the counter has stood still for long enough. Raises RunLocked when it moves."""
        began = self._clock()
        who = holder.describe() if holder else "a process that left no record"
        logger.info(
            "%s is held by %s; waiting %d s to see whether it still runs (--take-over does not wait)",
            *(self.path.parent, who, self._patience_s),
        )
        while self._clock() - began < self._patience_s:
            self._sleep(min(_LOOK_S, self._patience_s))
            now = read_holder(self.path)
            if now != holder and now is not None:
                raise self._refusal(now)
            if not self.path.exists():
                return
        logger.warning("%s: %s has stopped; its lock is taken over", self.path.parent, who)

    def _remove(self, holder: Holder | None) -> None:
        """Removes the lock of `holder`, and of nobody else: two processes may judge it gone at once."""
        aside = self.path.with_name(f"{LOCK}.{uuid.uuid4().hex}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        moved = read_holder(aside)
        if not self._take_over and (moved and moved.token) != (holder and holder.token):
            self._put_back(aside)
            raise self._refusal(moved)
        aside.unlink()

    def _put_back(self, aside: Path) -> None:
        """Its holder finds the same file again."""
        try:
            os.link(aside, self.path)
        except FileExistsError:
            pass  # a third one; the holder of this one stops before its next write
        except OSError:  # a disk without hard links
            aside.rename(self.path)
            return
        aside.unlink()

    def _refusal(self, holder: Holder | None) -> RunLocked:
        who = holder.describe() if holder else "another process"
        return RunLocked(
            f"{self.path.parent} is being written by {who} ({self.path}); wait for it to end, or pass "
            "--take-over to stop it from writing and continue here"
        )


@dataclass(slots=True)
class LockWatch:
    """Whether runs are held, by the rule of `RunLock`, for a process that looks again and again and never
    waits.

    Args:
        clock: time in seconds, for tests.
    """

    clock: Callable[[], float] = time.monotonic
    _seen: dict[Path, tuple[Holder | None, float]] = field(default_factory=dict)
    """Of locks of other machines: the last holder with its counter, and when it was first seen."""

    def is_held(self, folder: Path) -> bool:
        """False where no lock is there, its holder on this machine has ended, or the counter of another
        machine's has stood still for PATIENCE_S."""
        path = folder / LOCK
        holder = read_holder(path)
        if not path.exists():
            self._seen.pop(path, None)
            return False
        if holder is not None and is_here(holder):
            return is_alive(holder)
        last = self._seen.get(path)
        if last is None or last[0] != holder:
            self._seen[path] = last = holder, self.clock()
        return self.clock() - last[1] < PATIENCE_S
