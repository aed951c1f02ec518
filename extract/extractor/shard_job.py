"""Writes one shard in a thread of its own, which takes batches, writes rows and commits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from extract.extractor.codec_error import CodecErrors, Figures
from extract.extractor.encode_batch import HostBatch
from extract.extractor.row_loader import LoadedRow, SkippedRow
from stores.format.plan import ShardId
from stores.writing.shard_writer import ShardWriter
from stores.writing.writer import StoreWriter

QUEUED_BATCHES = 2
"""Batches that wait for a shard's thread: with the one being written they bound the memory a shard takes."""
_POLL_S = 0.1


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
        outcome = Outcome(shard=self.shard)
        shard = self._writer.open_shard(self.shard)
        try:
            while (item := self._next()) is not None:
                if item.encoded is not None:
                    item.encoded.wait()
                self._write(shard, item, outcome)
            outcome.errors = self._errors.figures(self._writer.plan.shard_name(self.shard))
            outcome.won = shard.commit(self._provenance, outcome.errors)
        except BaseException:
            shard.abort()
            raise
        return outcome

    def _write(self, shard: ShardWriter, item: Item, outcome: Outcome) -> None:
        stored = []
        for row, loaded in item.rows.items():
            if isinstance(loaded, LoadedRow):
                loaded = self._put(shard, row, loaded, item, outcome) or loaded
            if isinstance(loaded, LoadedRow):
                stored.append(item.index_of[row])
            if isinstance(loaded, SkippedRow):
                shard.skip(row, loaded.code, loaded.reason, source_sha256=loaded.source_sha256)
                outcome.skipped.append((row, loaded))
        if item.encoded is not None:
            self._errors.add(item.encoded, stored)
        shard.wait()  # so that memory is bounded by whole batches

    def _put(
        self, shard: ShardWriter, row: int, loaded: LoadedRow, item: Item, outcome: Outcome
    ) -> SkippedRow | None:
        """Writes a row; what to skip it for where its features cannot be stored."""
        assert item.encoded is not None
        index = item.index_of[row]
        problem = item.encoded.problem(index)
        if problem is not None:
            code, reason = problem
            return SkippedRow(code=code, reason=reason, source_sha256=loaded.source_sha256)
        levels = item.encoded.row(index)
        pixels = loaded.pixels if self._writer.plan.pixels else None
        shard.put(row, levels, loaded.targets, source_sha256=loaded.source_sha256, pixels=pixels)
        outcome.written += 1
        outcome.bytes += sum(array.nbytes for parts in levels.values() for array in parts.values())
        return None
