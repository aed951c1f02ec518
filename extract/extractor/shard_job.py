"""Writes one shard in a thread of its own, which takes batches, writes rows and commits.

A commit mostly waits for the disk, so that the next shards are written meanwhile.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from extract.extractor.batch_order import QUEUED_BATCHES, views_at_once
from extract.extractor.codec_error import CodecErrors, Figures
from extract.extractor.encode_batch import HostBatch
from extract.extractor.row_loader import LoadedRow, SkippedRow
from stores.format.plan import ShardId, StorePlan
from stores.writing.shard_writer import ShardWriter
from stores.writing.writer import StoreWriter

COMMITS_AT_ONCE = 2
"""Shards without a batch in memory that wait for the disk: one alone leaves it idle between its syncs."""
_POLL_S = 0.1


def shards_at_once(plan: StorePlan) -> int:
    """Shards that hold batches: those that take rows (see `batch_order`), and one that writes its last."""
    return views_at_once(plan) + 1


def held_batches(plan: StorePlan) -> int:
    """Computed batches in memory: each shard's thread writes one, others wait, and one is handed over."""
    return shards_at_once(plan) * (QUEUED_BATCHES + 1) + 1


class Stopped(Exception):
    """The extraction has failed elsewhere: this shard is given up, and nothing of it stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A batch of a shard."""

    rows: Mapping[int, LoadedRow | SkippedRow]
    """By bin-local row, in order."""
    index_of: Mapping[int, int]
    """Where each loaded row stands in `encoded`."""
    encoded: HostBatch | None
    """None where no row could be loaded."""


@dataclass(kw_only=True, slots=True)
class Outcome:
    """The result of writing a shard."""

    shard: ShardId
    written: int = 0
    skipped: list[tuple[int, SkippedRow]] = field(default_factory=list)
    """Bin-local rows and why."""
    bytes: int = 0
    """Of the arrays given to the store."""
    errors: Figures = field(default_factory=dict)
    won: bool = True
    """False: another process finished the shard first, and what it wrote counts."""


class ShardJob:
    """A shard being written by a thread of `pool`; `put` batches in order, then `end`."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        writer: StoreWriter,
        shard: ShardId,
        *,
        provenance: Mapping[str, Any],
        codec_limit: float | None,
        stop: threading.Event,
    ) -> None:
        self.shard = shard
        self._writer, self._provenance, self._stop = writer, provenance, stop
        self._errors = CodecErrors(codec_limit)
        self._items: queue.Queue[Item | None] = queue.Queue(QUEUED_BATCHES)
        self.written: Future[None] = Future()
        """Done when the thread holds no batch any more, and none is to come."""
        self.future: Future[Outcome] = pool.submit(self._run)

    def put(self, item: Item | None) -> None:
        """Hands a batch over, None for the end; waits for room. Returns at once where the thread has failed:
        `future` holds its error."""
        while not self.future.done():
            try:
                self._items.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def end(self) -> None:
        """Marks that all rows were put."""
        self.put(None)

    def _next(self) -> Item | None:
        while not self._stop.is_set():
            try:
                return self._items.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        raise Stopped

    def _run(self) -> Outcome:
        try:
            return self._write_shard()
        finally:
            if not self.written.done():
                self.written.set_result(None)

    def _write_shard(self) -> Outcome:
        outcome = Outcome(shard=self.shard)
        shard = self._writer.open_shard(self.shard)
        try:
            while (item := self._next()) is not None:
                if item.encoded is not None:
                    item.encoded.wait()
                self._write(shard, item, outcome)
            self.written.set_result(None)
            outcome.errors = self._errors.figures(self._writer.plan.shard_name(self.shard))
            outcome.won = shard.commit(self._provenance, outcome.errors)
        except BaseException:
            shard.abort()
            raise
        return outcome

    def _write(self, shard: ShardWriter, item: Item, outcome: Outcome) -> None:
        stored = []
        arrays = {} if item.encoded is None else item.encoded.arrays()
        is_sound = item.encoded is None or item.encoded.is_sound()
        for row, loaded in item.rows.items():
            if isinstance(loaded, LoadedRow) and not is_sound:
                loaded = _problem(loaded, item, row) or loaded
            if isinstance(loaded, LoadedRow):
                self._put(shard, row, loaded, arrays, item.index_of[row], outcome)
                stored.append(item.index_of[row])
            if isinstance(loaded, SkippedRow):
                shard.skip(row, loaded.code, loaded.reason, source_sha256=loaded.source_sha256)
                outcome.skipped.append((row, loaded))
        if item.encoded is not None:
            self._errors.add(item.encoded, stored)
        shard.wait()  # so that memory is bounded by whole batches

    def _put(
        self,
        shard: ShardWriter,
        row: int,
        loaded: LoadedRow,
        arrays: Mapping[str, Mapping[str, npt.NDArray[Any]]],
        index: int,
        outcome: Outcome,
    ) -> None:
        """Writes the row at `index` of the batch's arrays."""
        levels = {
            level: {name: array[index] for name, array in parts.items()} for level, parts in arrays.items()
        }
        pixels = loaded.pixels if self._writer.plan.pixels else None
        shard.put(row, levels, loaded.targets, source_sha256=loaded.source_sha256, pixels=pixels)
        outcome.written += 1
        outcome.bytes += sum(array.nbytes for parts in levels.values() for array in parts.values())


def wait_for_room(jobs: Collection[ShardJob], plan: StorePlan) -> None:
    """Returns when another shard may be begun: `shards_at_once` hold batches, COMMITS_AT_ONCE more do not.
    Short shards must not pile up before a slow disk."""
    most = shards_at_once(plan)
    while True:
        holding: list[Future[Any]] = [job.written for job in jobs if not job.written.done()]
        open_jobs: list[Future[Any]] = [job.future for job in jobs if not job.future.done()]
        if len(holding) < most and len(open_jobs) < most + COMMITS_AT_ONCE:
            return
        wait(holding if len(holding) >= most else open_jobs, return_when=FIRST_COMPLETED)


def _problem(loaded: LoadedRow, item: Item, row: int) -> SkippedRow | None:
    """What to skip a row for whose features cannot be stored."""
    assert item.encoded is not None
    problem = item.encoded.problem(item.index_of[row])
    if problem is None:
        return None
    code, reason = problem
    return SkippedRow(code=code, reason=reason, source_sha256=loaded.source_sha256)
