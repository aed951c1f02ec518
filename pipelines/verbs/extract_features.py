"""`extract`: plan, check space, load the backbone, fill the store or resume it."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Any

import torch

from extract.backbones.weights import require_source
from extract.sources.byte_sources import retried
from pipelines.catalog.retried_stores import fill_from_retried
from pipelines.catalog.stores import require_on_disk
from pipelines.cli.termination import termination_as_interrupt
from pipelines.config import ExtractConfig
from pipelines.config.time_span import seconds_of
from pipelines.engines.device_processes import extract_on
from pipelines.engines.devices import chosen_devices
from pipelines.engines.extraction_summary import (
    print_next_head,
    print_processes,
    print_summary,
    summary_fields,
    totals_of,
)
from pipelines.engines.one_process import create_unseen, fill, loaded, open_writer, part_fields
from pipelines.engines.parts import ChosenPart, choose_part
from pipelines.engines.ray_driver import extract_on_ray, require_ray
from pipelines.engines.slurm_array import require_slurm, status_command, submit, wait_for
from pipelines.engines.stop_request import StopRequest
from pipelines.forecast.exclusive_probe import require_exclusive
from pipelines.forecast.plan_text import geometry, print_geometry
from pipelines.forecast.planned_extraction import (
    GPU_BATCH_ROWS,
    GPU_PRECISION,
    Extraction,
    check_space,
    prepare,
)
from pipelines.next_step import print_next
from pipelines.verbs.verify_store import require_whole
from stores.remote.store_url import store_path


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
        return {**_run(config, chosen, stop), **part_fields(chosen)}


def _run(config: ExtractConfig, chosen: ChosenPart | None, stop: StopRequest) -> dict[str, Any]:
    if config.retry_skipped:
        require_on_disk(
            store_path(config.stores),
            "--retry-skipped",
            "`pull` the store, pass --stores with the folder that holds the copy, and `push` the new store",
        )
    if config.engine == "slurm":
        require_slurm(config)
        return _run_in_array(config)
    if config.engine == "ray":
        require_ray(config)
    devices = chosen_devices(config.devices, config.device, torch.cuda.device_count(), os.environ)
    extraction, planned = _planned(replace(config, device=devices[0]))
    if config.engine == "ray":
        together = extract_on_ray(config, stop)
        print_processes(together)
        return {**planned, **together}
    if len(devices) > 1:
        print(f"{len(devices)} processes: {', '.join(devices)}", flush=True)
        together = extract_on(devices, config, None if chosen is None else chosen.part, stop)
        print_processes(together)
        return {**planned, **together}
    backbone = loaded(config, extraction)
    writer = open_writer(config, extraction, backbone)
    if writer.complete:
        require_whole(writer.path)
        print(f"{writer.path} is complete: nothing to do")
        print_next_head(writer.path)
        written, skipped = totals_of(writer)
        nothing = {"rows_written": 0, "skipped": [], "shards_written": 0, "shards_left": 0}
        nothing |= {"total_rows_written": written, "total_rows_skipped": skipped}
        return {**planned, "store": str(writer.path), **nothing, "done_before": True}
    if config.retry_skipped:
        with termination_as_interrupt():
            fill_from_retried(extraction.stores, writer)
    summary = fill(config, extraction, backbone, writer, chosen, stop)
    totals = totals_of(writer)
    print_summary(writer, summary, totals, chosen, stop)
    stopped_by = stop.reason if summary.shards_left else None
    did = {**summary_fields(summary, totals), "stopped_by": stopped_by}
    return {**planned, "store": str(writer.path), **did, "done_before": False}


def _planned(config: ExtractConfig) -> tuple[Extraction, dict[str, Any]]:
    """The extraction and its geometry for `--json`, once it is known that it fits."""
    extraction = prepare(config)
    require_source(extraction.card, config.weights)
    planned = geometry(extraction)
    print_geometry(extraction, planned)
    check_space(extraction)
    retried(
        lambda: require_exclusive(extraction.stores, single_writer=config.single_writer),
        str(extraction.stores),
    )
    return extraction, planned


def _run_in_array(config: ExtractConfig) -> dict[str, Any]:
    """Submits an array whose tasks call `run`, and waits for them unless that is not wished."""
    store = None
    if config.slurm.submit_as is None:
        extraction, planned = _planned(config)
    else:
        config = replace(config, precision=config.precision or GPU_PRECISION)
        extraction, planned = _planned(replace(config, batch_size=config.batch_size or GPU_BATCH_ROWS))
        store = create_unseen(config, extraction).path
    submitted = submit(config, len(extraction.estimate.plan.shards()), run)
    each = f"{submitted.shards_a_task} shards each" if submitted.shards_a_task else "which share all shards"
    print(f"{len(submitted.ids)} tasks, {each}: {', '.join(submitted.ids)}", flush=True)
    status = status_command(store, config.stores)
    if config.slurm.submit_only:
        print_next(status)
        fields = {"jobs": submitted.ids, "shards_a_task": submitted.shards_a_task, "submitted": True}
        return {**planned, "store": None if store is None else str(store), **fields}
    together = wait_for(submitted, status)
    print_processes(together)
    return {**planned, **together, "jobs": submitted.ids}
