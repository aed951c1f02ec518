"""Claims: which process works on which shard of a store that is being written.

A claim is advice, so that no shard is computed twice while its writer lives; receipts alone decide whose
bytes count. It is a file `work/claims/<shard>`, created before the work begins, with a counter that its
process rewrites as it makes progress. A claim is free again when its process removes it, when that process is
known to have ended (on this machine), or when its counter stood still for `stall_s` by the clock of whoever
watches.

A claim that cannot be written, on a full or failing disk, is no reason to stop: the shard may then be
computed twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stores.work.folder import WORK
from stores.work.holder import Holder, is_alive, is_here, read_holder, this_process, write_holder

logger = logging.getLogger(__name__)

CLAIMS = "claims"
STALL_S = 600.0
"""Seconds a counter must stand still before another process takes the shard."""
BEAT_S = 15.0
"""Seconds between two rewritings of the counters, at least."""
Clock = Callable[[], float]


@dataclass(slots=True)
class _Seen:
    """A claim as it was first seen with its present counter."""

    holder: Holder | None
    since: float


class Claims:
    """The claims of one run of one process on one store.

    Args:
        root: of the store; must exist when a claim is taken.
        stall_s: see STALL_S.
        on_death: called with the shard's name before the claim of a process that ended or stalled is taken.
        clock: seconds, for tests.
        beat_s: see BEAT_S.
        token: of the claims to take for its own; None: a new one.
    """

    def __init__(
        self,
        root: Path,
        *,
        stall_s: float = STALL_S,
        on_death: Callable[[str], None] = lambda _: None,
        clock: Clock = time.monotonic,
        beat_s: float = BEAT_S,
        token: str | None = None,
    ) -> None:
        self._folder = root / WORK / CLAIMS
        self._stall_s, self._beat_s, self._clock, self.on_death = stall_s, beat_s, clock, on_death
        self._holder = this_process() if token is None else replace(this_process(), token=token)
        self._held: dict[str, int] = {}
        """Descriptors by name: a claim that was taken over is another file."""
        self._seen: dict[str, _Seen] = {}
        self._last_beat = clock()
        self._warned = False
        self.ended: set[str] = set()
        """Tokens of processes that are known to have ended, wherever they ran."""

    @property
    def token(self) -> str:
        """Marks the claims of this run."""
        return self._holder.token

    def take(self, name: str) -> bool:
        """Whether this process may work on the shard now: it is unclaimed, or its writer is gone."""
        if name in self._held:
            return True
        while True:
            if self._create(name):
                return True
            if not self._free(name):
                return False

    def _create(self, name: str) -> bool:
        path = self._folder / name
        try:
            for folder in (self._folder.parent, self._folder):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            self._warn(error)
            return True
        self._held[name] = descriptor
        try:
            write_holder(descriptor, self._holder)
        except OSError as error:
            self._warn(error)
        return True

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            logger.warning(
                "%s: claims cannot be written, shards may be computed twice: %s", self._folder, error
            )
        self._warned = True

    def _free(self, name: str) -> bool:
        """Whether the claim is gone now, or was removed because its process is."""
        path = self._folder / name
        holder = read_holder(path)
        if holder is None and not path.exists():
            return True
        if not self._is_gone(name, holder):
            return False
        who = holder.describe() if holder else "a process that left no record"
        if self._remove(path, holder):
            logger.info("shard %s: %s has ended or stopped; this process takes it over", name, who)
            self.on_death(name)
        return True

    def _is_gone(self, name: str, holder: Holder | None) -> bool:
        if holder is not None and (holder.token in self.ended or (is_here(holder) and not is_alive(holder))):
            return True
        seen = self._seen.get(name)
        if seen is None or seen.holder != holder:
            self._seen[name] = _Seen(holder, self._clock())
            return False
        return self._clock() - seen.since >= self._stall_s

    def _remove(self, path: Path, holder: Holder | None) -> bool:
        """Removes the claim of `holder`, and of nobody else: two processes may find it stalled at once."""
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            path.rename(aside)
        except OSError:  # another process was quicker
            return False
        moved = read_holder(aside)
        is_another = (moved and moved.token) != (holder and holder.token)
        with contextlib.suppress(OSError):
            if is_another:
                aside.rename(path)
            else:
                aside.unlink()
        return not is_another

    def beat(self, *, now: bool = False) -> None:
        """Rewrites the counters of all held claims, unless that was done less than `beat_s` ago."""
        if not now and self._clock() - self._last_beat < self._beat_s:
            return
        self._last_beat = self._clock()
        self._holder = replace(self._holder, counter=self._holder.counter + 1)
        for descriptor in self._held.values():
            with contextlib.suppress(OSError):  # the next one may succeed
                write_holder(descriptor, self._holder)

    def release(self, name: str) -> None:
        """Removes the claim, unless another process has taken it over."""
        descriptor = self._held.pop(name, None)
        if descriptor is None:
            return
        path = self._folder / name
        with contextlib.suppress(OSError):
            there, mine = path.stat(), os.fstat(descriptor)
            if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                path.unlink()
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def release_all(self) -> None:
        """Removes all claims of this process; also after an error."""
        for name in list(self._held):
            self.release(name)

    def free_silent(self) -> bool:
        """Frees the claims whose counter stood still for `stall_s` by the clock of the file system, for a
        process that does not stay to watch them. Returns whether it freed one it had not freed before."""
        live = live_claims(self._folder.parents[1], stall_s=self._stall_s)
        freed = False
        for name, holder in self.others().items():
            if name not in live and not self._is_gone(name, holder):
                self._seen[name] = _Seen(holder, self._clock() - self._stall_s)
                freed = True
        return freed

    def others(self) -> dict[str, Holder | None]:
        """Claims of other processes that are not known to have ended, by shard."""
        found = unfinished_claims(self._folder.parents[1])
        return {name: holder for name, holder in found.items() if not (holder and holder.token == self.token)}


def claims_of(root: Path) -> dict[str, Holder | None]:
    """Every claim of a store by shard; None for one that is being written or damaged."""
    folder = root / WORK / CLAIMS
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return {}
    return {name: read_holder(folder / name) for name in names if "." not in name}  # a dot: being removed


def unfinished_claims(root: Path) -> dict[str, Holder | None]:
    """Claims of processes that are not known to have ended."""
    return {n: h for n, h in claims_of(root).items() if not (h and is_here(h) and not is_alive(h))}


def live_claims(root: Path, *, stall_s: float = STALL_S) -> Mapping[str, Holder | None]:
    """Claims whose process may still be writing: alive on this machine, or elsewhere with a counter that was
    rewritten within `stall_s`, by the clock of the file system.

    Changes nothing but a file of its own in `work/`, whose time is the file system's present; where that
    cannot be made, every claim counts as live.
    """
    found = unfinished_claims(root)
    now = _file_system_time(root) if found else None
    if now is None:
        return found
    return {name: holder for name, holder in found.items() if _age(root, name, now) < stall_s}


def _age(root: Path, name: str, now: float) -> float:
    try:
        return now - (root / WORK / CLAIMS / name).stat().st_mtime
    except OSError:  # released just now: whatever its process has left is finished or removed
        return 0.0


def _file_system_time(root: Path) -> float | None:
    probe = root / WORK / f"now.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
