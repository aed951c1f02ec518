"""The order of batches: views of a record together, so that each source is decoded once.

Rows are view-major: the views of a record stand as far apart as there are records. The shards of several
views are filled side by side, and rows of one record are loaded together: all views of a video, whose
decoding begins at a key frame far before the first wanted frame, and up to eight of an image.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from stores.format.plan import ShardId, StorePlan, feature_row_bytes

DEFAULT_BATCH_ROWS = 4
QUEUED_BATCHES = 2
"""Batches that wait for a shard's thread: with the one being written they bound the memory a shard takes."""
IMAGE_VIEWS = 8
"""Views of an image that are filled side by side, at most."""
HELD_BYTES = 2 << 30
"""2 GiB: encoded batches of all of them."""
BATCHES_AT_RISK = 64
"""Of all their unfinished shards: what a killed extraction computes again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows that go through the backbone together. All are of one shard, and follow from the plan alone, so
    that a rerun computes the same batches whatever was done before."""

    shard: ShardId
    rows: range
    """Bin-local."""
    is_first: bool
    """Of its shard."""
    is_last: bool


def batches_of(plan: StorePlan, shard: ShardId, batch_rows: int | None = None) -> Iterator[Batch]:
    """The batches of a shard, of the size its bin was planned with, else of `batch_rows`."""
    rows = plan.shard_rows(shard)
    size = plan.bins[shard.bin].batch_rows or batch_rows or DEFAULT_BATCH_ROWS
    for start in range(0, len(rows), size):
        yield Batch(
            shard=shard,
            rows=rows[start : start + size],
            is_first=start == 0,
            is_last=start + size >= len(rows),
        )


def view_count(plan: StorePlan) -> int:
    """Views of each record."""
    return int(plan.rows.view.max()) + 1


def views_at_once(plan: StorePlan) -> int:
    """How many views of a record are filled side by side.

    All of a video. Of an image as many as HELD_BYTES of batches and BATCHES_AT_RISK allow: every shard that
    is being filled holds batches, and is lost where the process ends. Views of several sizes follow each
    other, and so do those of records that have several numbers of them, as sliding windows.
    """
    views = view_count(plan)
    if len(plan.bins) > 1 or len(plan.rows) != views * int((plan.rows.view == 0).sum()):
        return 1
    if plan.frames is not None:
        return views
    b = plan.bins[0]
    batch_rows = b.batch_rows or DEFAULT_BATCH_ROWS
    row_bytes = sum(feature_row_bytes(plan.pyramid, plan.codec, b.height_px, b.width_px, None).values())
    held = HELD_BYTES // ((QUEUED_BATCHES + 1) * batch_rows * max(1, row_bytes))
    at_risk = BATCHES_AT_RISK * batch_rows // b.shard_rows
    return max(1, min(views, IMAGE_VIEWS, held, at_risk))


def upcoming(
    plan: StorePlan,
    todo: deque[ShardId],
    batch_rows: int | None,
    claim: Callable[[ShardId], bool] = lambda _: True,
) -> Iterator[tuple[Batch, list[list[int]]]]:
    """The batches of the shards in `todo` in the order of their computation, each with the rows of the plan
    that are to be loaded from then on, in lists of one record each.

    Takes shards out of `todo`, also those added meanwhile, and leaves out those that `claim` refuses when
    their turn comes.
    """
    together = views_at_once(plan)
    while todo:
        if together == 1:
            shard = todo.popleft()
            for batch in batches_of(plan, shard, batch_rows) if claim(shard) else ():
                yield batch, [[plan.global_row(batch.shard.bin, row)] for row in batch.rows]
            continue
        shards, records = sorted(todo), len(plan.rows) // view_count(plan)
        todo.clear()
        for _, group in groupby(shards, key=lambda each: plan.shard_rows(each).start // records // together):
            yield from _swept(plan, list(group), batch_rows, claim)


def _swept(
    plan: StorePlan, shards: list[ShardId], batch_rows: int | None, claim: Callable[[ShardId], bool]
) -> Iterator[tuple[Batch, list[list[int]]]]:
    """Batches of some views of a plan of one bin, in the order of their records.

    A shard may hold the last records of one view and the first of the next: its end comes after all others,
    and those sources are decoded once more.
    """
    records = len(plan.rows) // view_count(plan)
    place_of = {shard: plan.shard_rows(shard).start % records for shard in shards}
    waiting = deque(sorted(shards, key=lambda shard: (place_of[shard], shard)))
    open_shards: list[tuple[int, ShardId, Batch, Iterator[Batch]]] = []
    claimed: set[ShardId] = set()
    asked: set[int] = set()

    def place(batch: Batch) -> int:
        return place_of[batch.shard] + batch.rows.start - plan.shard_rows(batch.shard).start

    def begin(shard: ShardId) -> None:
        if claim(shard):
            claimed.add(shard)
            push(batches_of(plan, shard, batch_rows))

    def push(batches: Iterator[Batch]) -> None:
        batch = next(batches, None)
        if batch is not None:
            heapq.heappush(open_shards, (place(batch), batch.shard, batch, batches))

    def together(where: int) -> list[int]:
        """The rows at this place of all shards."""
        rows = []
        for row in range(where % records, len(plan.rows), records):
            shard = ShardId(0, row // plan.bins[0].shard_rows)
            if shard in claimed and place_of[shard] + row - plan.shard_rows(shard).start == where:
                rows.append(row)
        return rows

    while open_shards or waiting:
        while waiting and (not open_shards or place_of[waiting[0]] <= open_shards[0][0]):
            begin(waiting.popleft())
        if not open_shards:
            return
        where, _, batch, rest = heapq.heappop(open_shards)
        while waiting and place_of[waiting[0]] < where + len(batch.rows):
            begin(waiting.popleft())  # its first rows are loaded with the last ones of this batch
        groups = []
        for row in batch.rows:
            if row not in asked:
                group = together(where + row - batch.rows.start)
                asked.update(group)
                groups.append(group)
        asked.difference_update(batch.rows)
        yield batch, groups
        push(rest)
