"""The shards of a store as several processes share them: each takes those that no other has claimed.

A process takes its next shard when it needs one, so that the last shards are shared too. Those that others
have claimed are looked at again once nothing else is left: they are done by then, or their process is gone.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable

from stores.format.plan import ShardId
from stores.shards.receipts import Receipt
from stores.work.attempts import MOST_DEATHS, Attempts, shard_attempts
from stores.writing.writer import StoreWriter

logger = logging.getLogger(__name__)

POLL_S = 2.0
"""Seconds between two looks at the shards of other processes."""


class SharedShards:
    """What this process has to do.

    Args:
        writer: of the store.
        attempts: of the store.
        shards: in the order in which this process tries to take them.
        on_done: called with each shard that another process has finished, and its receipt.
        sleep: waits so many seconds; for tests.
    """

    def __init__(
        self,
        writer: StoreWriter,
        attempts: Attempts,
        shards: Iterable[ShardId],
        on_done: Callable[[ShardId, Receipt], None],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.todo = deque(shards)
        """Not taken yet, as far as this process knows."""
        self._writer, self._attempts, self._on_done, self._sleep = writer, attempts, on_done, sleep
        self._elsewhere: list[ShardId] = []
        self._fragile: list[ShardId] = []
        self._one_by_one = False
        self._waited = False

    def __bool__(self) -> bool:
        """Whether anything may be left to do, but for what `one_by_one` is about."""
        return bool(self.todo or self._elsewhere)

    def one_by_one(self) -> bool:
        """Whether shards are left whose writers died again and again. They are to be done next, alone and
        record by record."""
        self._one_by_one = True
        self.todo.extend(self._fragile)
        self._fragile.clear()
        return bool(self.todo)

    def claim(self, shard: ShardId) -> bool:
        """Whether this process takes the shard; if not, another has finished it or is at it."""
        if self._is_done(shard):
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
        """Waits a little, then puts the shards of other processes back to those to be taken."""
        if not self._waited:
            others = self._writer.claims.others().values()
            who = sorted({holder.describe() for holder in others if holder}) or ["another process"]
            logger.info(
                "%s: waiting for %d shards of %s", self._writer.path, len(self._elsewhere), ", ".join(who)
            )
        self._waited = True
        self._sleep(POLL_S)
        self.todo.extend(self._elsewhere)
        self._elsewhere.clear()
