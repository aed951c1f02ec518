"""Batches of an extraction: planned from the shards, decoded and assembled ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from itertools import groupby
from typing import TypeVar

from extract.extractor.batch_order import DEFAULT_BATCH_ROWS, Batch, upcoming, views_at_once
from extract.extractor.progress import Stopwatch
from extract.extractor.row_loader import LoadedRow, RowLoader, SkippedRow
from stores.format.plan import ShardId, StorePlan

__all__ = ["BATCHES_AHEAD", "DEFAULT_BATCH_ROWS", "Batch", "Rows", "loaded_batches", "rows_ahead"]

BATCHES_AHEAD = 2
"""Batches of each view that are decoded beyond the one being computed."""

ASSEMBLED_BATCHES = 2
"""Batches that are put together for the device: the one that is being computed, and the next."""

T = TypeVar("T")

Rows = dict[int, LoadedRow | SkippedRow]
"""Loaded rows by bin-local number, in order."""


def rows_ahead(batch_rows: int, workers: int, views: int = 1) -> int:
    """The most rows that are decoded, or being decoded, and have not been handed out.

    Args:
        views: that are filled side by side; more than one are loaded together, up to a batch too early.

    >>> rows_ahead(4, 2), rows_ahead(1, 8), rows_ahead(3, 8), rows_ahead(1, 2, 12)
    (12, 16, 18, 60)
    """
    ahead = max(BATCHES_AHEAD * views + 1, -(-2 * workers * views // batch_rows)) * batch_rows
    return ahead if views == 1 else ahead + views * batch_rows


def loaded_batches(
    plan: StorePlan,
    todo: deque[ShardId],
    loader: RowLoader,
    pool: Executor,
    assembler: Executor,
    assemble: Callable[[Batch, Rows], T],
    watch: Stopwatch,
    *,
    workers: int,
    batch_rows: int | None,
    claim: Callable[[ShardId], bool] = lambda _: True,
    source_of: Callable[[int], str] | None = None,
) -> Iterator[tuple[Batch, Rows, T]]:
    """The batches of the shards in `todo`, decoded, each with what `assemble` makes of it; takes shards out
    of `todo`, also those added meanwhile, and leaves out those that `claim` refuses.

    At most `rows_ahead` rows are held, what one source has beyond a batch, and ASSEMBLED_BATCHES assembled.

    Args:
        pool: threads that load rows.
        assembler: a thread that assembles.
        source_of: names the source of a row of the plan, where records share them; those that follow each
            other are loaded together. None: each record has its own.

    Raises what RowLoader.load and `assemble` raise.
    """
    views, batches = views_at_once(plan), _by_source(upcoming(plan, todo, batch_rows, claim), source_of)
    ahead: deque[Batch] = deque()
    ready: deque[tuple[Batch, Future[tuple[Rows, T]]]] = deque()
    pending: dict[int, deque[Future[Rows]]] = {}  # several, where a failed shard is done again at once
    while True:
        while (
            len(ahead) + len(ready) <= BATCHES_AHEAD * views
            or sum(len(b.rows) for b in (*ahead, *(b for b, _ in ready))) < 2 * workers * views
        ):
            batch, groups = next(batches, (None, []))
            if batch is None:
                # Shards may be added until the last batch is out.
                batches = _by_source(upcoming(plan, todo, batch_rows, claim), source_of)
                break
            ahead.append(batch)
            for group in groups:
                loading = pool.submit(loader.load_views, group)
                for row in group:
                    pending.setdefault(row, deque()).append(loading)
        while ahead and len(ready) < ASSEMBLED_BATCHES:
            batch = ahead.popleft()
            global_rows = [plan.global_row(batch.shard.bin, row) for row in batch.rows]
            loads = [(row, _taken(pending, row)) for row in global_rows]
            ready.append((batch, assembler.submit(_assembled, batch, loads, assemble)))
        if not ready:
            return
        batch, assembling = ready.popleft()
        with watch.waiting_for("decode"):
            rows, made = assembling.result()
        yield batch, rows, made


def _assembled(
    batch: Batch, loads: Sequence[tuple[int, Future[Rows]]], assemble: Callable[[Batch, Rows], T]
) -> tuple[Rows, T]:
    """Waits for the rows; `loads` by their numbers in the plan."""
    rows = dict(zip(batch.rows, [load.result().pop(row) for row, load in loads], strict=True))
    return rows, assemble(batch, rows)


def _by_source(
    batches: Iterator[tuple[Batch, list[list[int]]]], source_of: Callable[[int], str] | None
) -> Iterator[tuple[Batch, list[list[int]]]]:
    """The batches, rows of one source that follow each other in one list: up to the end of the next batch, of
    which its first rows may be."""
    if source_of is None:
        yield from batches
        return
    held: tuple[Batch, list[list[int]]] | None = None
    for batch, groups in batches:
        merged = [
            [row for group in together for row in group]
            for _, together in groupby(groups, key=lambda group: source_of(group[0]))
        ]
        if held is not None:
            last = held[1][-1:]
            if last and merged and source_of(last[0][0]) == source_of(merged[0][0]):
                last[0].extend(merged.pop(0))
            yield held
        held = batch, merged
    if held is not None:
        yield held


def _taken(pending: dict[int, deque[Future[Rows]]], row: int) -> Future[Rows]:
    """The load of a row that was asked for first."""
    loads = pending[row]
    load = loads.popleft()
    if not loads:
        del pending[row]
    return load
