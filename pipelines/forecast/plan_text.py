"""Text of a plan: bytes, room, time, and whether caching pays, as `plan` and `extract` print them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from extract.codecs.on_device import has_device_half
from extract.planning.backbone_costs import backbone_costs
from heads.errors import HeadError
from pipelines.config import TrainConfig
from pipelines.costs.head_costs import head_costs
from pipelines.forecast.caching_advice import WARN_VISITS, Advice, HeadForecast, training_records
from pipelines.forecast.planned_extraction import Extraction, free_bytes, free_inodes
from pipelines.forecast.request_estimate import fits_block_cache
from pipelines.forecast.speed_probe import Speed
from pipelines.forecast.storage_options import Way
from pipelines.forecast.training_length import Length, Sources, recipe_line, training_line
from pipelines.forecast.usable_data import unusable_lines, unusable_summary
from pipelines.forecast.window_padding import padding_line, padding_summary, patch_padding
from pipelines.tasks import task_of
from pipelines.units import byte_rate, duration, giga, gigabytes, rough_duration
from stores.remote.remote_files import UNLIMITED_BYTES
from stores.remote.store_url import StoreUrl

BUSY = 0.15
"""A share of the processors' time above which other programs are reported."""


def geometry(extraction: Extraction) -> dict[str, Any]:
    """What the store will hold, in numbers."""
    estimate, plan = extraction.estimate, extraction.estimate.plan
    filled = len(plan.rows) - _empty_rows(extraction)
    return {
        "name": plan.name,
        "records": len(extraction.dataset.records),
        "rows": len(plan.rows),
        "levels": {name: size * filled // len(plan.rows) for name, size in estimate.bytes_by_level.items()},
        "bytes": estimate.total_bytes,
        "files": estimate.files.files,
        "inodes": estimate.files.inodes,
        "inodes_while_written": estimate.files.inodes_while_written,
        "free_inodes": free_inodes(extraction.stores),
        "bins": {b.name: b.rows for b in plan.bins},
        "shards": len(plan.shards()),
        "free_bytes": free_bytes(extraction.stores),
        **unusable_summary(extraction.dataset, extraction.labels),
        **padding_summary(extraction.card, plan.bins),
        **patch_padding(extraction.card, plan.rows),
    }


def print_costs(extraction: Extraction, heads: Sequence[TrainConfig], *, of_heads: bool) -> dict[str, Any]:
    """What a row costs the backbone and, where they are asked for, the heads; as JSON values too."""
    plan, dataset = extraction.estimate.plan, extraction.dataset
    row = backbone_costs(extraction.card, plan.bins, plan.frames)
    height, width = row["input_px"]
    tokens = "" if row["tokens"] is None else f", {row['tokens']} tokens"
    counted = "not counted" if row["multiply_adds"] is None else giga(row["multiply_adds"])
    print(f"  backbone  {counted} multiply-adds a row of {height}x{width} px{tokens}")
    found: dict[str, Any] = {"backbone": row, "heads": {}}
    for training in heads if of_heads else ():
        try:
            costs = head_costs(
                training.head,
                dataset.task,
                plan.pyramid,
                dataset.num_classes,
                (height, width),
                frames=plan.frames,
                **training.head_settings,
            )
        except HeadError:  # reported where caching is judged
            continue
        neck = f", neck {giga(costs.neck_multiply_adds)}" if costs.neck_parameters else ""
        of_neck = f", neck {costs.neck_parameters / 1e6:.2f} M" if costs.neck_parameters else ""
        print(
            f"  head      {training.head}: {costs.parameters / 1e6:.2f} M parameters{of_neck}; "
            f"{giga(costs.multiply_adds)} multiply-adds a row{neck}"
        )
        found["heads"][training.head] = dataclasses.asdict(costs)
    return found


def recipe_lines(extraction: Extraction, trainings: Sequence[TrainConfig]) -> list[str]:
    """Which recipes heads have where they go by the number of records: on own data, and on few records."""
    if not extraction.dataset.is_training:
        return []
    is_own = "description" in extraction.estimate.plan.identity["dataset"]
    lines = [recipe_line(training, extraction.dataset.name, is_own) for training in trainings]
    return [f"  recipe    {line}" for line in lines if line is not None]


def _empty_rows(extraction: Extraction) -> int:
    """Rows of records outside the subset."""
    dataset, plan = extraction.dataset, extraction.estimate.plan
    outside = 0 if dataset.subset is None else len(dataset.records) - len(dataset.subset)
    return outside * plan.rows.view_count


def print_bytes(extraction: Extraction, summary: dict[str, Any]) -> None:
    """What is stored, and whether it fits, in two lines."""
    plan, missing = extraction.estimate.plan, summary["bytes"] - summary["free_bytes"]
    print(
        f"{plan.name}: {summary['rows']} rows ({summary['records']} records, {plan_views(extraction)}), "
        f"{gigabytes(summary['bytes'])} in {summary['files']} files"
    )
    free, most = summary["free_inodes"], summary["inodes_while_written"]
    if free is not None and free < most:
        print(f"  inodes    {_inodes(summary['inodes'], most, free)} on {extraction.stores.absolute()}")
    if missing <= 0:
        print(f"  room      fits: {_free(summary['free_bytes'])} on {extraction.stores.absolute()}")
        return
    print(
        f"  room      DOES NOT FIT: {gigabytes(missing)} missing on {extraction.stores.absolute()}; choose "
        f"another --stores, or fewer --levels or --views (--details compares them)"
    )


def print_short_time(extraction: Extraction, speed: Speed) -> None:
    """Duration and bottleneck of the extraction in one line."""
    print(
        f"  time      about {rough_duration(speed.total_seconds)} on {extraction.device}; "
        f"bottleneck: {speed.bottleneck}"
    )


def print_geometry(extraction: Extraction, summary: dict[str, Any]) -> None:
    """The numbers of `geometry` as text."""
    plan, views = extraction.estimate.plan, plan_views(extraction)
    print(f"{plan.name} under {extraction.stores}")
    print(f"  rows      {summary['rows']}: {summary['records']} records, {views}")
    for line in data_lines(extraction):
        print(line)
    bins = ", ".join(f"{name} ({rows})" for name, rows in list(summary["bins"].items())[:6])
    more = f" and {len(plan.bins) - 6} more" if len(plan.bins) > 6 else ""
    print(f"  bins      {len(plan.bins)}: {bins}{more}")
    for level in plan.pyramid:
        size, of_all = summary["levels"][level.name], extraction.estimate.bytes_by_level[level.name]
        print(
            f"  level     {level.name}: stride {level.stride_px} px, {level.channels} channels, {plan.codec},"
            f" {gigabytes(size)} ({gigabytes(of_all // len(plan.rows))} a row)"
        )
    print(
        f"  bytes     {gigabytes(summary['bytes'])} in {summary['files']} files, {summary['shards']} shards"
    )
    if not isinstance(extraction.stores, StoreUrl):
        inodes = _inodes(summary["inodes"], summary["inodes_while_written"], summary["free_inodes"])
        print(f"  inodes    {inodes}")
    if "windows" in summary:
        print(f"  windows   {padding_line(summary)}")
    print_patch_padding(summary)
    verdict = "fits" if summary["bytes"] <= summary["free_bytes"] else "DOES NOT FIT"
    print(f"  free      {_free(summary['free_bytes'])} on {extraction.stores.absolute()}: {verdict}")


def _free(free: int) -> str:
    return "no limit known" if free >= UNLIMITED_BYTES else f"{gigabytes(free)} free"


def print_notes(extraction: Extraction, summary: dict[str, Any]) -> None:
    """After the answer in three lines: what to know about the data, and padding that other windows avoid."""
    for line in data_lines(extraction):
        print(line)
    if any(summary.get("padding_tokens", ())):
        print(f"  windows   {padding_line(summary)}")
    print_patch_padding(summary)


def print_patch_padding(summary: Mapping[str, Any]) -> None:
    """How much of a plain ViT's work is padding, where any is."""
    if summary.get("padding_patches"):
        print(
            f"  padding   {summary['padding_patches']:.0%} of the patches show nothing of an image; the "
            f"backbone attends to them, as ViTDet's does"
        )


def data_lines(extraction: Extraction) -> list[str]:
    """The subset, a codec that runs on the host, and which records, annotations and labels are there."""
    codec, subset = extraction.estimate.plan.codec, extraction.dataset.subset
    lines = []
    if subset is not None:
        lines.append(f"  subset    {len(subset)} of the records; the rows of the others stay empty")
    if not has_device_half(codec):
        lines.append(f"  codec     {codec} has no device half: numpy encodes and decodes it on the host")
    return [*lines, *unusable_lines(extraction.dataset, extraction.labels)]


def _inodes(finished: int, most: int, free: int | None) -> str:
    """Files and folders of the store and of its disk.

    >>> _inodes(151, 159, 100), _inodes(151, 159, None)
    ('151, at most 159 while it is written; 100 free: TOO FEW', '151, at most 159 while it is written')
    """
    text = f"{finished}, at most {most} while it is written"
    if free is None:
        return text
    return f"{text}; {free} free" + (": TOO FEW" if free < most else "")


def plan_views(extraction: Extraction) -> str:
    """The views of a record in words."""
    count = extraction.estimate.plan.rows.view_count
    return f"{count} {'view' if count == 1 else 'views'} each ({extraction.recipe.name})"


def print_time(extraction: Extraction, speed: Speed) -> None:
    """Duration and bottleneck of the extraction."""
    print(
        f"  time      about {duration(speed.total_seconds)} on {extraction.device},"
        f" {duration(speed.start_seconds)} of it before the first row; bottleneck: {speed.bottleneck}"
    )
    if extraction.device.type == "cpu" and speed.others_share > BUSY:
        quiet = duration(speed.total_seconds * (1 - speed.others_share))
        print(
            f"            about {quiet} without other programs, using {speed.others_share:.0%} of the cores"
        )
    print(
        f"  a row     {speed.decode_seconds * 1e3:.1f} ms to decode with {extraction.workers} threads,"
        f" {speed.forward_seconds * 1e3:.1f} ms for the backbone,"
        f" {speed.write_seconds * 1e3:.1f} ms"
        f" {'to the disk' if speed.download_bytes_per_s is None else 'to be uploaded'}"
    )
    written = byte_rate(speed.write_bytes_per_s)
    read, cached = byte_rate(speed.read_bytes_per_s), byte_rate(speed.cached_bytes_per_s)
    if speed.download_bytes_per_s is None:
        print(f"  disk      writes {written} with fsync, reads {read}, {cached} from memory")
        return
    print(f"  bucket    uploads {written}, downloads {byte_rate(speed.download_bytes_per_s)}")
    if fits_block_cache(extraction):
        print(f"  cache     later epochs read the block cache: {read} from its disk, {cached} from memory")
    else:
        print("  cache     the store is larger than the block cache: every epoch downloads what is not kept")


def print_advice(extraction: Extraction, advice: Advice, *, in_detail: bool = True) -> None:
    """Whether caching pays for each head and how often a view is seen; in detail what other choices
    change."""
    for head, problem in advice.problems.items():
        print(f"  caching   {head}: {problem}")
    for forecast in advice.heads:
        print(f"  caching   {forecast.head}: {_verdict(forecast)}")
    if advice.heads:
        print(f"            the store is read from {_read_from(extraction, in_memory=advice.in_memory)}")
    for variant in advice.variants if in_detail else ():
        steps = ", ".join(
            f"{head} needs more levels" if seconds is None else f"{head} {_step(seconds)} a step"
            for head, seconds in variant.heads.items()
        )
        print(f"  instead   {variant.codec} {','.join(variant.levels)}: {gigabytes(variant.bytes)}; {steps}")
    sources = Sources(training_records(extraction), task_of(extraction.dataset.task).source_kind)
    views = extraction.estimate.plan.rows.view_count
    for forecast in advice.heads:
        length = Length(
            head=forecast.head,
            steps=forecast.steps,
            seconds=forecast.steps * forecast.cached_seconds,
            visits_per_view=forecast.visits_per_view,
        )
        print(f"  training  {training_line(length, sources, views, WARN_VISITS)}")


def _read_from(extraction: Extraction, *, in_memory: bool) -> str:
    if isinstance(extraction.stores, StoreUrl):
        if not fits_block_cache(extraction):
            return "the bucket: it is larger than the block cache"
        where = "in memory" if in_memory else "on the disk"
        return f"the block cache {where} once the first epoch has filled it"
    return "memory, which holds all of it" if in_memory else "the disk: it is larger than the memory"


def print_ways(ways: Sequence[Way]) -> None:
    """Costs of storing all levels, only deep ones or none, and the fastest that fits."""
    for way in ways:
        steps = ", ".join(f"{head} {_step(seconds)}" for head, seconds in way.heads.items())
        room = "" if way.fits else "; DOES NOT FIT"
        print(
            f"  option    {way.name}: {gigabytes(way.bytes)}, {steps} a step; extraction and one run of"
            f" each head: {duration(way.total_seconds)}{room}"
        )
    if ways:
        print(f"  advice    {ways[0].name} ({ways[0].command}): the fastest here that fits")


def _verdict(forecast: HeadForecast) -> str:
    """One line.

    >>> _verdict(HeadForecast(head="fpn", steps=10, batch_size=2, head_seconds=0.1, read_seconds=0.2,
    ...     cached_seconds=0.2, online_seconds=0.3, break_even_runs=2, visits_per_view=1.0))
    'pays from run 2 on: a step takes 200 ms from the store (head 100 ms, reading 200 ms), 300 ms online'
    """
    runs = forecast.break_even_runs
    answer = "DOES NOT PAY" if runs is None else f"pays from run {runs} on"
    return (
        f"{answer}: a step takes {_step(forecast.cached_seconds)} from the store"
        f" (head {_step(forecast.head_seconds)}, reading {_step(forecast.read_seconds)}),"
        f" {_step(forecast.online_seconds)} online"
    )


def _step(seconds: float) -> str:
    """
    >>> _step(0.2), _step(246.603)
    ('200 ms', '246.6 s')
    """
    return f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
