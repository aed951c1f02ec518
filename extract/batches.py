"""Batches of an extraction: planned from the shards, decoded ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from extract.progress import Stopwatch
from extract.row_loader import LoadedRow, RowLoader, SkippedRow
from stores.layout import ShardId, StorePlan

BATCHES_AHEAD = 2
"""Batches that are decoded beyond the one being computed."""
DEFAULT_BATCH_ROWS = 4

Rows = dict[int, LoadedRow | SkippedRow]
"""Loaded rows by bin-local number, in order."""


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


def batches_of(plan: StorePlan, shard: ShardId, batch_rows: int | None = None) -> list[Batch]:
    """The batches of a shard, of the size its bin was planned with, else of `batch_rows`."""
    rows = plan.shard_rows(shard)
    size = plan.bins[shard.bin].batch_rows or batch_rows or DEFAULT_BATCH_ROWS
    return [
        Batch(
            shard=shard,
            rows=rows[start : start + size],
            is_first=start == 0,
            is_last=start + size >= len(rows),
        )
        for start in range(0, len(rows), size)
    ]


def rows_ahead(batch_rows: int, workers: int) -> int:
    """The most rows that are decoded, or being decoded, and have not been handed out.

    >>> rows_ahead(4, 2), rows_ahead(1, 8), rows_ahead(3, 8)
    (12, 16, 18)
    """
    return max(BATCHES_AHEAD + 1, -(-2 * workers // batch_rows)) * batch_rows


def loaded_batches(
    plan: StorePlan,
    todo: deque[ShardId],
    loader: RowLoader,
    pool: ThreadPoolExecutor,
    watch: Stopwatch,
    *,
    workers: int,
    batch_rows: int | None,
) -> Iterator[tuple[Batch, Rows]]:
    """The batches of the shards in `todo`, decoded; takes shards out of it, also those added meanwhile.

    At most `rows_ahead` rows are held.

    Raises what RowLoader.load raises.
    """
    batches: deque[Batch] = deque()
    ahead: deque[tuple[Batch, list[Future[LoadedRow | SkippedRow]]]] = deque()
    while True:
        while len(ahead) <= BATCHES_AHEAD or sum(len(batch.rows) for batch, _ in ahead) < 2 * workers:
            if not batches and todo:
                batches.extend(batches_of(plan, todo.popleft(), batch_rows))
            if not batches:
                break
            batch = batches.popleft()
            rows = [plan.global_row(batch.shard.bin, row) for row in batch.rows]
            ahead.append((batch, [pool.submit(loader.load, row) for row in rows]))
        if not ahead:
            return
        batch, futures = ahead.popleft()
        with watch.during("decode"):
            loaded = {row: future.result() for row, future in zip(batch.rows, futures, strict=True)}
        yield batch, loaded
