"""`extract`: plan, check space, load the backbone, fill the store or resume it."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace
from typing import Any

from extract.backbones.loading import FrozenBackbone, load_backbone
from extract.backbones.weights import require_source
from extract.extractor.batch_shapes import fit_batches, try_sizes
from extract.extractor.fit_codec import fit_codec
from extract.extractor.run import Summary, TooManyFailed, extract
from extract.planning.backbone_costs import backbone_costs
from extract.planning.plan import complete_plan
from extract.sources.byte_sources import NOT_IN_SUBSET, retried
from pipelines.catalog.choose_backbone import begun_by_another_rule, of_another_view_revision
from pipelines.catalog.known_weights import remember_weights
from pipelines.catalog.retried_stores import fill_from_retried, plan_of_retry
from pipelines.catalog.skipped_rows import skipped_lines
from pipelines.catalog.stores import MANIFEST, TRAINING, describe_store
from pipelines.catalog.usual_heads import usual_heads
from pipelines.cli.progress_bar import ExtractionProgress, counted
from pipelines.cli.run_log import logged_run
from pipelines.cli.termination import termination_as_interrupt
from pipelines.config import ExtractConfig
from pipelines.disk_errors import free_inodes
from pipelines.errors import WorkFailed
from pipelines.forecast.exclusive_probe import require_exclusive
from pipelines.forecast.plan_text import geometry, print_geometry
from pipelines.forecast.planned_extraction import (
    Extraction,
    check_rest,
    check_space,
    free_bytes,
    prepare,
    require_writable,
    rest_bytes,
)
from pipelines.forecast.usable_data import allowed_failures
from pipelines.next_step import command, print_next
from pipelines.units import duration, gigabytes
from pipelines.verbs.verify_store import require_whole
from stores.checks.verify import store_status
from stores.errors import SpaceError, StoreError
from stores.format.manifest import PLAN_NAME
from stores.shards.disk import Files
from stores.work.claims import Claims
from stores.writing.writer import StoreWriter

logger = logging.getLogger(__name__)

MAX_LISTED = 20
"""Skipped records that are printed; `status` lists more."""
BOTTLENECKS = {"decode": "decoding", "backbone": "backbone", "write": "writing"}
"""The stages of an extraction in words."""


class DiskFull(SpaceError):
    """The disk filled up while a store was written."""

    resumable = True
    """Finished shards stay: the same command continues once there is room."""


class NoInodes(StoreError, OSError):
    """The disk has room for bytes, and for no more files."""

    resumable = True

    def __init__(self, where: str) -> None:
        super().__init__(f"{where}: the disk has no inodes left for more files; remove files from it")
        self.errno = errno.ENOSPC


def run(config: ExtractConfig) -> dict[str, Any]:
    """Fills the store that the configuration describes.

    Raises:
        WeightsUnavailable, SpaceError: before the backbone is loaded.
        BackboneTooLarge: the device's memory does not hold the backbone; nothing is written.
        SizeRefused: the backbone takes no images of the views' sizes; nothing is written.
        IdentityError: a source file changed since the store was begun.
        Damaged: the store is complete, and files of it are missing or have another size.
        BatchTooLarge: the device's memory does not hold a batch; finished shards stay.
        WorkFailed: more records than `max_failed` cannot be used; finished shards stay.
    """
    extraction = prepare(config)
    require_source(extraction.card, config.weights)
    planned = geometry(extraction)
    print_geometry(extraction, planned)
    check_space(extraction)
    retried(
        lambda: require_exclusive(extraction.stores, single_writer=config.single_writer),
        str(extraction.stores),
    )
    backbone = retried(
        lambda: load_backbone(
            extraction.card, config.weights, device=extraction.device, precision=extraction.precision
        ),
        f"weights {config.weights}",
    )
    if not extraction.card.is_swin:  # a Swin takes every size
        try_sizes(extraction.estimate.plan, backbone)
    writer = _open_writer(config, extraction, backbone)
    remember_weights(extraction.stores, backbone.weights_sha256, config.weights)
    if writer.complete:
        require_whole(writer.path)
        print(f"{writer.path} is complete: nothing to do")
        _print_next(writer)
        return {**planned, "store": str(writer.path), "rows_written": 0, "skipped": [], "done_before": True}
    if config.retry_skipped:
        with termination_as_interrupt():
            fill_from_retried(extraction.stores, writer)
    summary = _fill(config, extraction, backbone, writer)
    totals = _totals(writer)
    _print(writer, summary, totals)
    return {**planned, "store": str(writer.path), **_summary(summary, totals), "done_before": False}


def _open_writer(config: ExtractConfig, extraction: Extraction, backbone: FrozenBackbone) -> StoreWriter:
    with counted("reading annotations", len(extraction.dataset.records)) as on_record:
        plan = complete_plan(
            extraction.estimate,
            extraction.dataset,
            extraction.recipe,
            extraction.card,
            weights_sha256=backbone.weights_sha256,
            precision=backbone.precision,
            on_record=on_record,
        )
    root = extraction.stores / plan.folder_name
    if config.retry_skipped:
        plan = plan_of_retry(root)
        root = extraction.stores / plan.folder_name
    if not (root / MANIFEST).exists():  # a complete store is not written to, and may be read-only
        require_writable(extraction.stores, root)
    if not root.exists():
        for begun in begun_by_another_rule(extraction.stores, plan.identity):
            logger.warning(
                "%s was begun under the window rule partition, as in earlier releases, and is not "
                "complete: --window-rule partition resumes it; this run begins a new store",
                begun,
            )
        for path, revision in of_another_view_revision(extraction.stores, plan.identity):
            logger.warning(
                "%s has the same views by revision %d of their code (an earlier release): --view-revision %d "
                "continues it; this run begins a new store",
                path,
                revision,
                revision,
            )
        if config.batch_size is None:
            plan = fit_batches(plan, backbone)
    if not (root / PLAN_NAME).exists():  # another writer's fit is adopted
        plan = fit_codec(extraction.dataset, plan, backbone)
        plan = replace(plan, backbone_costs=backbone_costs(extraction.card, plan.bins, plan.frames))
    writer = retried(
        lambda: StoreWriter.open_or_create(
            extraction.stores,
            plan,
            needed_bytes=extraction.estimate.total_bytes,
            files=Files(single_writer=config.single_writer),
        ),
        str(root),
    )
    writer.use_claims(Claims(writer.path, stall_s=config.stall_s))
    return writer


def _fill(
    config: ExtractConfig, extraction: Extraction, backbone: FrozenBackbone, writer: StoreWriter
) -> Summary:
    pending, shards = retried(writer.pending, str(writer.path)), len(writer.plan.shards())
    if len(pending) < shards:
        logger.info("%s: resuming, %d of %d shards are done", writer.path, shards - len(pending), shards)
    check_rest(writer, pending, extraction.estimate.total_bytes)
    allowed = allowed_failures(extraction.dataset) if config.max_failed is None else config.max_failed
    try:
        with (
            termination_as_interrupt(),
            ExtractionProgress(writer.path.name) as shown,
            logged_run(writer.path, shown, device=str(extraction.device), pending=len(pending)) as progress,
        ):
            return extract(
                extraction.dataset,
                writer.plan,
                backbone,
                writer,
                batch_rows=None,
                workers=extraction.workers,
                max_failed=allowed,
                codec_limit=config.codec_limit,
                progress=progress,
            )
    except TooManyFailed as error:
        raise WorkFailed(
            f"{error}; finished shards stay: fix these records (which makes a new store), or rerun the same "
            f"command with a larger --max-failed"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        if free_inodes(writer.path) == 0:
            raise NoInodes(str(writer.path)) from error
        rest = rest_bytes(writer, writer.pending(), extraction.estimate.total_bytes)
        raise DiskFull(str(writer.path), rest, free_bytes(writer.path)) from error


def _print(writer: StoreWriter, summary: Summary, totals: tuple[int, int]) -> None:
    lines = skipped_lines(summary.skipped)
    for line in lines[:MAX_LISTED]:
        print(f"  skipped   {line}")
    if len(lines) > MAX_LISTED:
        print(f"  skipped   {len(lines) - MAX_LISTED} more: python -m pipelines status --store {writer.path}")
    took = f"in {duration(summary.seconds)}"
    if summary.rows_written:  # without rows there is no speed
        took += (
            f" ({summary.images_per_s:.1f} images/s, {gigabytes(summary.bytes)};"
            f" bottleneck: {BOTTLENECKS[summary.bottleneck]})"
        )
    line = f"{summary.rows_written} rows written, {len(summary.skipped)} skipped, {took}"
    if summary.shards < len(writer.plan.shards()):  # the others are of earlier runs
        written, skipped = totals
        line = f"{written} rows, {skipped} skipped; in this run {line}"
    print(f"{writer.path} is complete: {line}")
    if summary.shards_elsewhere:
        lost = f", {summary.shards_lost} of them computed here too" if summary.shards_lost else ""
        print(f"  meanwhile {summary.shards_elsewhere} shards were finished by other processes{lost}")
    _print_next(writer)


def _print_next(writer: StoreWriter) -> None:
    """A head of the task, trained from this store; from a training store, if this one is for tests."""
    store = describe_store(writer.path)
    head = usual_heads(store.identity["dataset"]["task"], store.levels)[0]
    is_training = store.purpose == TRAINING
    where = {"store": writer.path} if is_training else {"stores": writer.path.parent}
    print_next(command("train-head", head=head, **where))


def _totals(writer: StoreWriter) -> tuple[int, int]:
    """Rows written and skipped by all runs, without those outside a subset."""
    status = store_status(writer.path)
    return status.written, sum(code != NOT_IN_SUBSET for _, _, code, _ in status.skipped)


def _summary(summary: Summary, totals: tuple[int, int]) -> dict[str, Any]:
    """Of this run, but for the totals."""
    total_written, total_skipped = totals
    return {
        "rows_written": summary.rows_written,
        "skipped": [{"key": key, "view": view, "reason": reason} for key, view, reason in summary.skipped],
        "total_rows_written": total_written,
        "total_rows_skipped": total_skipped,
        "shards_written": summary.shards,
        "shards_elsewhere": summary.shards_elsewhere,
        "shards_lost": summary.shards_lost,
        "seconds": summary.seconds,
        "images_per_s": summary.images_per_s,
        "bottleneck": summary.bottleneck,
        "manifest_digest": summary.manifest_digest,
    }
