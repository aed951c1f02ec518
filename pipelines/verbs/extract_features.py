"""`extract`: plan, check space, load the backbone, fill the store or resume it."""

from __future__ import annotations

import errno
import logging
import os
import signal
from dataclasses import replace
from typing import Any

import torch

from extract.backbones.loading import FrozenBackbone, load_backbone
from extract.backbones.weights import require_source
from extract.extractor.batch_shapes import fit_batches, try_sizes
from extract.extractor.fit_codec import fit_codec
from extract.extractor.run import Summary, TooManyFailed, extract
from extract.planning.backbone_costs import backbone_costs
from extract.planning.plan import complete_plan
from extract.sources.byte_sources import retried
from pipelines.catalog.choose_backbone import begun_by_another_rule, of_another_view_revision
from pipelines.catalog.known_weights import remember_weights
from pipelines.catalog.retried_stores import fill_from_retried, plan_of_retry
from pipelines.catalog.stores import MANIFEST
from pipelines.cli.progress_bar import ExtractionProgress, counted
from pipelines.cli.run_log import logged_run
from pipelines.cli.termination import termination_as_interrupt
from pipelines.config import ExtractConfig
from pipelines.config.time_span import seconds_of
from pipelines.disk_errors import free_inodes
from pipelines.engines.device_processes import extract_on
from pipelines.engines.devices import chosen_devices
from pipelines.engines.extraction_summary import (
    print_next_head,
    print_processes,
    print_summary,
    summary_fields,
    totals_of,
)
from pipelines.engines.parts import ChosenPart, choose_part
from pipelines.engines.stop_request import StopRequest
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
from pipelines.verbs.verify_store import require_whole
from stores.errors import SpaceError, StoreError
from stores.format.manifest import PLAN_NAME
from stores.shards.disk import Files
from stores.work.claims import Claims
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


def run(config: ExtractConfig) -> dict[str, Any]:
    """Fills the store that the configuration describes, or the part of it that is this process's.

    Raises:
        WeightsUnavailable, SpaceError: before the backbone is loaded.
        BackboneTooLarge: the device's memory does not hold the backbone; nothing is written.
        SizeRefused: the backbone takes no images of the views' sizes; nothing is written.
        IdentityError: a source file changed since the store was begun.
        Damaged: the store is complete, and files of it are missing or have another size.
        BatchTooLarge: the device's memory does not hold a batch; finished shards stay.
        WorkFailed: more records than `max_failed` cannot be used; finished shards stay.
    """
    chosen = choose_part(config.part, os.environ)
    if chosen is not None:
        print(f"part {chosen.part}, counted from 0: {chosen.source}", flush=True)
    after = config.stop_after
    stop = StopRequest(None if after is None else seconds_of(after), after or "")
    with stop.on_signals(signal.SIGUSR1):  # it would end the process while the store is planned
        return {**_run(config, chosen, stop), **_part_fields(chosen)}


def _part_fields(chosen: ChosenPart | None) -> dict[str, Any]:
    if chosen is None:
        return {}
    return {"part": chosen.part.index, "parts": chosen.part.count, "part_source": chosen.source}


def _run(config: ExtractConfig, chosen: ChosenPart | None, stop: StopRequest) -> dict[str, Any]:
    devices = chosen_devices(config.devices, config.device, torch.cuda.device_count(), os.environ)
    extraction = prepare(replace(config, device=devices[0]))
    require_source(extraction.card, config.weights)
    planned = geometry(extraction)
    print_geometry(extraction, planned)
    check_space(extraction)
    retried(
        lambda: require_exclusive(extraction.stores, single_writer=config.single_writer),
        str(extraction.stores),
    )
    if len(devices) > 1:
        print(f"{len(devices)} processes: {', '.join(devices)}", flush=True)
        together = extract_on(devices, config, None if chosen is None else chosen.part, stop)
        print_processes(together)
        return {**planned, **together}
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
        print_next_head(writer.path)
        nothing = {"rows_written": 0, "skipped": [], "shards_written": 0, "shards_left": 0}
        return {**planned, "store": str(writer.path), **nothing, "done_before": True}
    if config.retry_skipped:
        with termination_as_interrupt():
            fill_from_retried(extraction.stores, writer)
    summary = _fill(config, extraction, backbone, writer, chosen, stop)
    totals = totals_of(writer)
    print_summary(writer, summary, totals, chosen, stop)
    stopped_by = stop.reason if summary.shards_left else None
    did = {**summary_fields(summary, totals), "stopped_by": stopped_by}
    return {**planned, "store": str(writer.path), **did, "done_before": False}


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
    config: ExtractConfig,
    extraction: Extraction,
    backbone: FrozenBackbone,
    writer: StoreWriter,
    chosen: ChosenPart | None,
    stop: StopRequest,
) -> Summary:
    pending, shards = retried(writer.pending, str(writer.path)), len(writer.plan.shards())
    if len(pending) < shards:
        logger.info("%s: resuming, %d of %d shards are done", writer.path, shards - len(pending), shards)
    check_rest(writer, pending, extraction.estimate.total_bytes)
    allowed = allowed_failures(extraction.dataset) if config.max_failed is None else config.max_failed
    try:
        with (
            stop.on_signals(),
            ExtractionProgress(writer.path.name) as shown,
            logged_run(
                writer.path,
                shown,
                device=str(extraction.device),
                pending=len(pending),
                **_part_fields(chosen),
            ) as progress,
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
                part=None if chosen is None else chosen.part,
                stop=stop,
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
