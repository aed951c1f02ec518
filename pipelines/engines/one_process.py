"""One process of an extraction: its backbone, its writer, and the shards that it fills."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from extract.backbones.loading import FrozenBackbone, load_backbone
from extract.datasets import data_folder
from extract.extractor.batch_shapes import fit_batches, try_sizes
from extract.extractor.fit_codec import fit_codec
from extract.extractor.progress import Progress
from extract.extractor.run import Summary, TooManyFailed, extract
from extract.planning.backbone_costs import backbone_costs
from extract.planning.begun import record_sources
from extract.planning.plan import complete_plan
from extract.sources.byte_sources import retried
from pipelines.catalog.choose_backbone import begun_by_another_rule, of_other_resizes
from pipelines.catalog.known_weights import remember_weights
from pipelines.catalog.retried_stores import plan_of_retry
from pipelines.catalog.stores import MANIFEST
from pipelines.cli.progress_bar import counted
from pipelines.cli.run_log import logged_run
from pipelines.config import ExtractConfig
from pipelines.disk_errors import free_inodes
from pipelines.engines.continue_line import settings_to_continue
from pipelines.engines.parts import ChosenPart
from pipelines.engines.process_progress import extraction_progress
from pipelines.engines.stop_request import StopRequest
from pipelines.errors import UsageError, WorkFailed
from pipelines.forecast.planned_extraction import (
    Extraction,
    check_rest,
    free_bytes,
    require_writable,
    rest_bytes,
)
from pipelines.forecast.usable_data import allowed_failures
from stores.codecs import codec, needs_state
from stores.errors import SpaceError, StoreError
from stores.format.manifest import PLAN_NAME
from stores.format.plan import ShardId
from stores.remote.opening import claims_on, files_of
from stores.writing.writer import StoreWriter

logger = logging.getLogger(__name__)


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


def part_fields(chosen: ChosenPart | None) -> dict[str, Any]:
    if chosen is None:
        return {}
    return {"part": chosen.part.index, "parts": chosen.part.count, "part_source": chosen.source}


def loaded(config: ExtractConfig, extraction: Extraction) -> FrozenBackbone:
    """The backbone on its device, which takes the views' sizes."""
    backbone = retried(
        lambda: load_backbone(
            extraction.card, config.weights, device=extraction.device, precision=extraction.precision
        ),
        f"weights {config.weights}",
    )
    if not extraction.card.is_swin:  # a Swin takes every size
        try_sizes(extraction.estimate.plan, backbone)
    return backbone


def open_writer(config: ExtractConfig, extraction: Extraction, backbone: FrozenBackbone) -> StoreWriter:
    """The writer of the planned store, which is made unless another process has."""
    is_begun = extraction.estimate.begun is not None
    what = "annotations are as they were when the store was begun" if is_begun else "reading annotations"
    with counted(what, len(extraction.dataset.records)) as on_record:
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
        given = config.interpolation is not None
        for path, how, flags in of_other_resizes(extraction.stores, plan.identity, interpolation_given=given):
            logger.warning(
                "%s has the same views %s (an earlier release, or a flag): %s continues it; "
                "this run begins a new store",
                path,
                how,
                flags,
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
            files=files_of(root, single_writer=config.single_writer),
        ),
        str(root),
    )
    if not config.retry_skipped:
        record_sources(writer.path, extraction.dataset)
    writer.use_claims(claims_on(writer.path, stall_s=config.stall_s))
    remember_weights(extraction.stores, backbone.weights_sha256, config.weights)
    return writer


def create_unseen(config: ExtractConfig, extraction: Extraction) -> StoreWriter:
    """The writer of a store that is created on a machine without the device it was planned for.

    Raises UsageError for a codec that is fitted to rows of that device.
    """
    codec_name = extraction.estimate.plan.codec
    if needs_state(codec(codec_name)):
        raise UsageError(
            f"--submit-as with --codec {codec_name}, which is fitted on the device: leave --submit-as out, "
            "and the first task creates the store"
        )
    backbone = load_backbone(extraction.card, config.weights, precision=extraction.precision)
    return open_writer(config, extraction, backbone)


def fill(
    config: ExtractConfig,
    extraction: Extraction,
    backbone: FrozenBackbone,
    writer: StoreWriter,
    chosen: ChosenPart | None,
    stop: StopRequest,
    *,
    only: Collection[ShardId] | None = None,
    show: Callable[[Progress], None] | None = None,
) -> Summary:
    """Fills the store or this process's part of it, with progress and a log.

    Args:
        only: the shards to fill, of a process that is handed shards; None: all, or those of its part.
        show: called with every progress; None: a bar or log lines.

    Raises WorkFailed, DiskFull or NoInodes; finished shards stay.
    """
    pending, shards = retried(writer.pending, str(writer.path)), len(writer.plan.shards())
    if len(pending) < shards:
        rows = len(writer.plan.rows)
        done = rows - sum(len(writer.plan.shard_rows(shard)) for shard in pending)
        logger.info(
            "%s: continues after %d of %d rows, %d of %d shards",
            *(writer.path, done, rows, shards - len(pending), shards),
        )
    check_rest(writer, pending, extraction.estimate.total_bytes)
    allowed = allowed_failures(extraction.dataset) if config.max_failed is None else config.max_failed
    try:
        with (
            stop.on_signals(),
            nullcontext(show) if show else extraction_progress(writer.path.name) as shown,
            logged_run(
                writer.path,
                shown,
                device=str(extraction.device),
                pending=len(pending),
                data=_data_to_record(config),
                settings=settings_to_continue(config, is_handed_shards=only is not None),
                cwd=str(Path.cwd()),
                **part_fields(chosen),
            ) as progress,
        ):
            summary = extract(
                extraction.dataset,
                writer.plan,
                backbone,
                writer,
                batch_rows=None,
                workers=extraction.workers,
                max_failed=allowed,
                codec_limit=config.codec_limit,
                part=None if chosen is None else chosen.part,
                stop=stop,
                most=config.max_shards,
                only=only,
                progress=progress,
            )
        if config.max_shards is not None and summary.shards + summary.shards_lost >= config.max_shards:
            stop.reason = stop.reason or f"--max-shards {config.max_shards}"
        return summary
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


def _data_to_record(config: ExtractConfig) -> str | None:
    """The folder that the data set is read from, absolute; None of what is no path of this machine."""
    folder = Path(data_folder(config.dataset, config.data))
    return str(folder.resolve()) if folder.exists() else None
