"""The shards of a store as several processes share them: each takes those that no other has claimed.

A process takes its next shard when it needs one, so that the last shards are shared too. Those that others
have claimed are looked at again once nothing else is left: they are done by then, or their process is gone.
One that works on a part of the store takes its own shards first, then helps with the others, and does not
wait for what others are still computing.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from extract.extractor.batch_order import view_count, views_at_once
from stores.format.plan import ShardId, StorePlan
from stores.shards.receipts import Receipt
from stores.work.attempts import MOST_DEATHS, Attempts, shard_attempts
from stores.writing.writer import StoreWriter

logger = logging.getLogger(__name__)

POLL_S = 2.0
"""Seconds between two looks at the shards of other processes."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of `count` processes that fill a store together; `index` counts from 0."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"part {self}: expected a number of parts of 1 or more")
        if not 0 <= self.index < self.count:
            last = self.count - 1
            raise ValueError(
                f"part {self}: parts count from 0, so expected 0/{self.count} to {last}/{self.count}"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def part_of_shard(plan: StorePlan, shard: ShardId, count: int, *, together: bool) -> int:
    """Which of `count` parts a shard belongs to: a hash of its id, whatever else is in the store.

    Shards of several views that are filled side by side belong together by their place among the records,
    since each source is decoded once for all of them.

    Args:
        together: whether shards of several views are filled side by side.
    """
    name = plan.shard_name(shard)
    if together:
        records = len(plan.rows) // view_count(plan)
        name = f"place-{plan.shard_rows(shard).start % records // plan.bins[shard.bin].shard_rows}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % count


def _in_rounds(plan: StorePlan, shards: Iterable[ShardId], part: Part | None) -> list[list[ShardId]]:
    """Own shards, then those to help with: from the part that follows, each from its end, where its own
    process comes last."""
    if part is None:
        return [list(shards)]
    by_distance: dict[int, list[ShardId]] = {}
    together = views_at_once(plan) > 1  # once: it looks at every level
    for shard in shards:
        distance = (part_of_shard(plan, shard, part.count, together=together) - part.index) % part.count
        by_distance.setdefault(distance, []).append(shard)
    own = by_distance.pop(0, [])
    return [own, [shard for _, others in sorted(by_distance.items()) for shard in reversed(others)]]


class SharedShards:
    """What this process has to do.

    Args:
        writer: of the store.
        attempts: of the store.
        shards: in the order in which a process without a part tries to take them.
        on_done: called with each shard that another process has finished, and its receipt.
        part: of this process. It leaves the shards that living processes work on to them; None: it waits.
        stop: whether no further shard shall be begun.
        most: shards that this process begins; None: no limit.
        sleep: waits so many seconds; for tests.
    """

    def __init__(
        self,
        writer: StoreWriter,
        attempts: Attempts,
        shards: Iterable[ShardId],
        on_done: Callable[[ShardId, Receipt], None],
        *,
        part: Part | None = None,
        stop: Callable[[], bool] = lambda: False,
        most: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        first, *later = _in_rounds(writer.plan, shards, part)
        self.todo = deque(first)
        """To be taken now, as far as this process knows."""
        self._later = deque(shard for each in later for shard in each)
        self._writer, self._attempts, self._on_done, self._sleep = writer, attempts, on_done, sleep
        self._part, self._stop, self._most = part, stop, most
        self._begun: set[ShardId] = set()
        self._took, self._is_through = False, False
        self._elsewhere: list[ShardId] = []
        self._fragile: list[ShardId] = []
        self._one_by_one = False
        self._waited = False

    def __bool__(self) -> bool:
        """Whether anything may be left to do, but for what `one_by_one` is about."""
        if self._is_through or self._stop():
            return False
        if self._is_full:
            return not self._begun.isdisjoint(self.todo)  # one whose files could not be written
        return bool(self.todo or self._later or self._elsewhere)

    @property
    def _is_full(self) -> bool:
        return self._most is not None and len(self._begun) >= self._most

    @property
    def may_be_left(self) -> bool:
        """Whether shards may be unfinished after this process has done what it shall."""
        return self._part is not None or self._most is not None or self._stop()

    def one_by_one(self) -> bool:
        """Whether shards are left whose writers died again and again. They are to be done next, alone and
        record by record."""
        self._one_by_one, self._is_through = True, False
        self.todo.extend(self._fragile)
        self._fragile.clear()
        return bool(self.todo) and not self._stop()

    def claim(self, shard: ShardId) -> bool:
        """Whether this process takes the shard; if not, another has finished it or is at it, or the process
        shall stop."""
        if self._stop() or (self._is_full and shard not in self._begun) or self._is_done(shard):
            return False
        name = self._writer.plan.shard_name(shard)
        if not self._one_by_one and len(self._attempts.reasons(shard_attempts(name))) >= MOST_DEATHS:
            self._fragile.append(shard)
            return False
        if not self._writer.claims.take(name):
            self._elsewhere.append(shard)
            return False
        if self._is_done(shard):  # between the two looks
            self.release(shard)
            return False
        self._took = True
        self._begun.add(shard)
        return True

    def _is_done(self, shard: ShardId) -> bool:
        receipt = self._writer.receipt(shard)
        if receipt is not None:
            self._on_done(shard, receipt)
        return receipt is not None

    def release(self, shard: ShardId) -> None:
        """The shard is finished, or was given up."""
        self._writer.claims.release(self._writer.plan.shard_name(shard))

    def look_again(self) -> None:
        """The next shards to try, when those before are taken: those to help with, then once more those of
        other processes, for which a process without a part waits a little."""
        if self._later:
            self.todo.extend(self._later)
            self._later.clear()
            return
        if self._part is None:
            self._wait()
        elif not self._took and not self._writer.claims.free_silent():
            self._is_through = True
            return
        self._took = False
        self.todo.extend(self._elsewhere)
        self._elsewhere.clear()

    def _wait(self) -> None:
        if not self._waited:
            others = self._writer.claims.others().values()
            who = sorted({holder.describe() for holder in others if holder}) or ["another process"]
            logger.info(
                "%s: waiting for %d shards of %s", self._writer.path, len(self._elsewhere), ", ".join(who)
            )
        self._waited = True
        self._sleep(POLL_S)
