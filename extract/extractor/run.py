"""The extraction: decode, forward, encode, write and commit, concurrently.

Threads load rows ahead, whose sources processes decode (extract.decoding.decoder_pool); one puts batches
together; the calling thread drives the device; each shard has a thread that writes and commits it while the
next ones are computed. Every queue is bounded. In memory at most: `rows_ahead` rows that wait for the device,
ASSEMBLED_BATCHES batches of pixels, and `held_batches` batches that are computed, encoded beside their views
and targets. `memory_bound` gives it in bytes.

On a GPU a batch has one shape for each bin: short batches and skipped rows are filled with empty images. A
CPU takes rows one by one and needs no fillers. A GPU that runs out of memory before the first shard is
finished gets batches of half the size; later the run ends, see extract.extractor.batch_shapes.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

from extract.datasets.contract import Dataset
from extract.extractor.batch_loader import Batch, Rows, loaded_batches
from extract.extractor.batch_shapes import BATCHES_IN_FLIGHT, BatchTooLarge, halve_batches, shape_matters
from extract.extractor.codec_error import CodecWarnings, sample_cells
from extract.extractor.encode_batch import Backbone, HostPixels, assemble, encode_batch, view_shape
from extract.extractor.progress import Progress
from extract.extractor.provenance import differences, provenance
from extract.extractor.row_loader import LoadedRow, RowLoader, SourceDigests
from extract.extractor.run_state import Summary, Tally, TooManyFailed
from extract.extractor.shard_job import (
    COMMITS_AT_ONCE,
    Item,
    Outcome,
    ShardJob,
    shards_at_once,
    wait_for_room,
)
from extract.extractor.shared_shards import Part, SharedShards
from extract.sources.byte_sources import retried
from stores.errors import IdentityError
from stores.format.plan import ShardId, StorePlan
from stores.remote.opening import attempts_on
from stores.shards.receipts import Receipt
from stores.work.attempts import MOST_DEATHS, shard_attempts
from stores.writing.writer import StoreWriter

__all__ = ["BatchTooLarge", "Progress", "Summary", "TooManyFailed", "extract"]

logger = logging.getLogger(__name__)

SHARD_TRIES = 3
"""How often a shard whose files could not be written is computed and written."""
_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Disk errors that retrying does not fix."""


def extract(
    dataset: Dataset,
    plan: StorePlan,
    backbone: Backbone,
    writer: StoreWriter,
    *,
    batch_rows: int | None = None,
    workers: int | None = None,
    max_failed: int | None = None,
    codec_limit: float | None = None,
    part: Part | None = None,
    stop: Callable[[], bool] = lambda: False,
    most: int | None = None,
    only: Collection[ShardId] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Fills what is missing of a store, then commits it, unless shards are left.

    Args:
        dataset: the one that was planned.
        plan: of the store; the writer's own geometry counts where an older plan was adopted.
        backbone: frozen, on its device, with the plan's weights.
        writer: of the store.
        batch_rows: rows of a forward pass in bins whose plan does not say it.
        workers: threads that load rows, for which at most one process a core decodes; None: one a core.
        max_failed: broken records that may be skipped, earlier runs included; None: 1 % of all, at least 10.
        codec_limit: the codec's largest error of the median channel, relative to its standard deviation; five
        times as much for the worst channel; None: no limit, but a warning above 2 % and 10 %.
        part: of several processes: its own shards come first, then those of others that nobody computes.
            What others are computing is left to them, and whoever finds nothing left commits. None: the whole
            store; it waits for other processes.
        stop: asked before each batch; once it is true, shards that were begun are finished and no others
            begun.
        most: shards that are begun; None: no limit.
        only: the shards to fill, handed out by whoever called; what others are computing is left to them, as
            with a part. None: all.
        progress: called by this thread after every batch and every shard.

    Raises:
        TooManyFailed: see max_failed.
        ValueError: the backbone lacks a planned level.
        IdentityError: a source is not the one that was planned or that other rows were made of.
        CodecError: the codec's error exceeds `codec_limit`.
        BatchTooLarge: the device's memory holds no batch, or none of the shape that finished shards had.
        OSError: reading or writing failed, after retries where these may help.
    """
    if plan.identity_digest != writer.plan.identity_digest:
        raise IdentityError("the plan (sha256)", writer.plan.identity_digest, plan.identity_digest)
    missing = [level.name for level in plan.pyramid if level not in tuple(backbone.pyramid)]
    if missing:
        raise ValueError(
            f"the backbone has no {', '.join(missing)} as planned; it has {backbone.pyramid.names}"
        )
    while True:
        run = _Run(
            dataset,
            writer,
            backbone,
            max_failed=max(10, len(dataset.records) // 100) if max_failed is None else max_failed,
            codec_limit=codec_limit,
            part=part if only is None else Part(0, 1),
            stop=stop,
            most=most,
            only=only,
            progress=progress or (lambda _: None),
        )
        try:
            return run.carry_out(workers=workers or len(os.sched_getaffinity(0)), batch_rows=batch_rows)
        except torch.OutOfMemoryError as error:
            if run.computing is None or not shape_matters(backbone.device):
                raise
            problem = str(error)
        finally:
            writer.claims.release_all()
        # Outside the handler, because the error keeps the failed batch alive.
        halve_batches(writer, run.computing, problem, backbone.device)


class _Run:
    """The state of one extraction; call `carry_out` once."""

    def __init__(
        self,
        dataset: Dataset,
        writer: StoreWriter,
        backbone: Backbone,
        *,
        max_failed: int,
        codec_limit: float | None,
        part: Part | None,
        stop: Callable[[], bool],
        most: int | None,
        only: Collection[ShardId] | None,
        progress: Callable[[Progress], None],
    ) -> None:
        self._writer, self._plan, self._backbone, self._report = writer, writer.plan, backbone, progress
        self._codec_limit, self._codec_warnings = codec_limit, CodecWarnings(self._plan.codec)
        self._provenance = provenance(backbone.device, of_videos=self._plan.frames is not None)
        is_complete = writer.complete
        finished = {} if is_complete else retried(writer.finished, str(writer.path))
        shards = self._plan.shards() if only is None else only
        todo = () if is_complete else [shard for shard in shards if shard not in finished]
        self._attempts = attempts_on(writer.path)
        writer.claims.on_death = self._count_death
        self._shards = SharedShards(
            writer, self._attempts, todo, self._done_elsewhere, part=part, stop=stop, most=most
        )
        self._shall_stop = stop
        self._tally = Tally(self._plan, todo, dataset.subset, max_failed, finished)
        self._digests = SourceDigests(self._recorded_sources(finished))
        self._dataset = dataset
        self._warn_of_another_machine(finished)
        self._jobs: dict[ShardId, ShardJob] = {}
        self._tries: dict[ShardId, int] = {}
        self._dropped: set[ShardId] = set()
        self._stop = threading.Event()
        self._in_flight: deque[torch.cuda.Event] = deque()
        self.computing: int | None = None
        """The bin of the batch on the device."""

    def _recorded_sources(self, finished: Mapping[ShardId, Receipt]) -> dict[str, bytes]:
        sources: dict[str, bytes] = {}
        for shard, receipt in finished.items():
            self._tally.add_earlier_failures(shard, receipt)
            sources |= self._sources_of(shard, receipt)
        return sources

    def _sources_of(self, shard: ShardId, receipt: Receipt) -> dict[str, bytes]:
        rows = zip(self._plan.shard_rows(shard), receipt.source, strict=True)
        return {self._tally.key(shard, row): bytes.fromhex(source) for row, source in rows if source}

    def _count_death(self, shard_name: str) -> None:
        self._attempts.add(shard_attempts(shard_name), "its process ended")

    def _done_elsewhere(self, shard: ShardId, receipt: Receipt) -> None:
        """Another process has finished a shard meanwhile."""
        self._tally.drop_work(shard, receipt)
        for key, source in self._sources_of(shard, receipt).items():
            self._digests.record(key, source)

    def _warn_of_another_machine(self, finished: Mapping[ShardId, Receipt]) -> None:
        for receipt in finished.values():
            if others := differences(self._provenance, receipt.provenance):
                logger.warning(
                    "this store was begun on another device or with other versions (%s): its rows may "
                    "differ in the last bits",
                    "; ".join(others),
                )
                return

    def carry_out(self, *, workers: int, batch_rows: int | None) -> Summary:
        self._fill(workers=workers, batch_rows=batch_rows, one_by_one=False)
        if self._shards.one_by_one():
            logger.warning(
                "%d shards have ended %d processes or more: their records are loaded one by one",
                *(len(self._shards.todo), MOST_DEATHS),
            )
            self._fill(workers=1, batch_rows=batch_rows, one_by_one=True)
        left = retried(self._writer.pending, str(self._writer.path)) if self._shards.may_be_left else []
        if left:
            return self._tally.summary(None, shards_left=len(left))
        return self._tally.summary(retried(self._writer.finish, f"commit of {self._writer.path}"))

    def _fill(self, *, workers: int, batch_rows: int | None, one_by_one: bool) -> None:
        loader = RowLoader(self._dataset, self._plan, self._digests, self._attempts, one_by_one=one_by_one)
        with (
            ThreadPoolExecutor(workers, "decode") as decoders,
            ThreadPoolExecutor(1, "assemble") as assembler,
            ThreadPoolExecutor(shards_at_once(self._plan) + COMMITS_AT_ONCE, "shard") as shard_pool,
        ):
            try:
                while self._shards or self._jobs:
                    for batch, rows, assembled in loaded_batches(
                        self._plan,
                        self._shards.todo,
                        loader,
                        decoders,
                        assembler,
                        self._assembled,
                        self._tally.watch,
                        workers=workers,
                        batch_rows=batch_rows,
                        claim=self._shards.claim,
                        source_of=loader.source_of,
                    ):
                        if self._is_dropped(batch):
                            continue
                        self._tally.add_rows(batch.shard, rows)
                        self._compute(batch, rows, assembled, shard_pool)
                        self._collect(wait_for_all=False)
                        self._writer.claims.beat()
                        self._report(self._tally.progress())
                    with self._tally.watch.waiting_for("write"):
                        self._collect(wait_for_all=True)
                    if self._shards and not self._shards.todo:
                        self._shards.look_again()
            except BaseException:
                self._stop.set()  # the shards' threads give up, delete their files and end
                for pool in (decoders, assembler):
                    pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _is_dropped(self, batch: Batch) -> bool:
        """Whether it is of a shard that was claimed ahead and shall not be begun any more."""
        if batch.is_first and self._shall_stop():
            self._dropped.add(batch.shard)
            self._shards.release(batch.shard)
        return batch.shard in self._dropped

    def _compute(
        self, batch: Batch, rows: Rows, assembled: HostPixels | None, shard_pool: ThreadPoolExecutor
    ) -> None:
        """Sends a batch through the backbone and hands it to its shard's thread."""
        if not batch.is_first and batch.shard not in self._jobs:
            return  # its thread has failed, and the whole shard will be done again
        self.computing = batch.shard.bin
        item = self._encoded(batch, rows, assembled)
        self.computing = None
        if batch.is_first:
            with self._tally.watch.waiting_for("write"):
                wait_for_room(list(self._jobs.values()), self._plan)
            self._collect(wait_for_all=False)
            self._jobs[batch.shard] = ShardJob(
                shard_pool,
                self._writer,
                batch.shard,
                provenance=self._provenance,
                codec_limit=self._codec_limit,
                stop=self._stop,
            )
        job = self._jobs[batch.shard]
        with self._tally.watch.waiting_for("write"):
            job.put(item)
            if batch.is_last:
                job.end()

    def _slots(self, batch: Batch, rows: Rows) -> list[int]:
        """The bin-local rows of a batch as the device takes it: on a GPU also those that were not loaded."""
        if not shape_matters(self._backbone.device):
            return [row for row, loaded in rows.items() if isinstance(loaded, LoadedRow)]
        first = batch.rows.start
        return list(range(first, first + (self._plan.bins[batch.shard.bin].batch_rows or len(batch.rows))))

    def _assembled(self, batch: Batch, rows: Rows) -> HostPixels | None:
        """The batch in the device's shape, None where no row could be loaded; in the assembler's thread."""
        loaded = {row: r for row, r in rows.items() if isinstance(r, LoadedRow)}
        if not loaded:
            return None
        slots, begin = self._slots(batch, rows), self._plan.shard_rows(batch.shard).start
        return assemble(
            [loaded.get(row) for row in slots],
            view_shape(self._plan, batch.shard.bin),
            sample_cells(self._plan, batch.shard, [row - begin for row in slots]),
            self._backbone.device,
        )

    def _encoded(self, batch: Batch, rows: Rows, assembled: HostPixels | None) -> Item:
        if assembled is None:
            return Item(rows=rows, index_of={}, encoded=None)
        while len(self._in_flight) >= BATCHES_IN_FLIGHT:
            self._in_flight.popleft().synchronize()
        encoded = encode_batch(self._backbone, self._plan, assembled)
        if encoded.copied is not None:
            self._in_flight.append(encoded.copied)
        slots = enumerate(self._slots(batch, rows))
        index_of = {row: index for index, row in slots if isinstance(rows.get(row), LoadedRow)}
        return Item(rows=rows, index_of=index_of, encoded=encoded)

    def _collect(self, *, wait_for_all: bool) -> None:
        """Takes the outcomes of shards whose threads have ended, or waits and takes all."""
        for shard, job in list(self._jobs.items()):
            if not (wait_for_all or job.future.done()):
                continue
            del self._jobs[shard]
            try:
                outcome = job.future.result()
            except OSError as error:
                self._shards.release(shard)
                self._try_again(shard, error)
                continue
            self._shards.release(shard)
            if not outcome.won:
                self._add_loss(outcome)
                continue
            self._tally.add_outcome(outcome)
            self._codec_warnings.look_at(outcome.errors, self._plan.shard_name(shard))
            self._report(self._tally.progress(shard))

    def _add_loss(self, outcome: Outcome) -> None:
        name = self._plan.shard_name(outcome.shard)
        logger.warning("shard %s: another process finished it first; its rows count, not these", name)
        self._tally.add_loss(outcome, self._writer.receipt(outcome.shard))

    def _try_again(self, shard: ShardId, error: OSError) -> None:
        self._tries[shard] = self._tries.get(shard, 1) + 1
        if error.errno in _LASTING or self._tries[shard] > SHARD_TRIES:
            raise error
        logger.warning("shard %s: %s; retrying the shard", self._plan.shard_name(shard), error)
        self._shards.todo.append(shard)
        self._tally.add_work(shard)
