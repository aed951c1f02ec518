"""`plan`: size and duration of an extraction, before anything is written."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from extract.backbones.weights import WeightsUnavailable, require_source
from extract.codecs.on_device import has_device_half
from extract.extractor.stage_times import TooLarge
from pipelines.config import ForecastConfig, TrainConfig
from pipelines.forecast.caching_advice import (
    WARN_VISITS,
    Advice,
    HeadForecast,
    caching_advice,
    training_configs,
    training_records,
)
from pipelines.forecast.exclusive_probe import UNKNOWN, way_of, way_text
from pipelines.forecast.measurement_cache import SpeedCache
from pipelines.forecast.planned_extraction import Extraction, free_bytes, prepare
from pipelines.forecast.speed_probe import Speed, measure_speed, program_seconds
from pipelines.forecast.storage_options import Way, compare_ways, with_all_levels
from pipelines.forecast.training_length import Length, Sources, recipe_line, training_line
from pipelines.forecast.usable_data import unusable_lines, unusable_summary
from pipelines.forecast.window_padding import padding_line, padding_summary, patch_padding
from pipelines.machine.free_memory import available_bytes
from pipelines.tasks import task_of
from pipelines.units import byte_rate, duration, gigabytes
from stores.shards.exclusive import LINK

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of a disk that leave its speed unmeasured; the rest of the plan is printed all the same."""
BUSY = 0.15
"""A share of the processors' time above which other programs are reported."""


def run(config: ForecastConfig) -> dict[str, Any]:
    """Prints rows, bytes, bins, files, free space, time and whether caching pays; writes nothing.

    Raises ValueError for a name that is unknown, before anything is measured.
    """
    extraction = prepare(config)
    prepared_s = program_seconds()
    trainings = training_configs(config, extraction)
    summary = geometry(extraction)
    print_geometry(extraction, summary)
    for line in recipe_lines(extraction, trainings):
        print(line)
    if (way := way_of(extraction.stores)) not in (LINK, UNKNOWN):
        print(f"  writers   {way_text(way)}")
    try:
        require_source(extraction.card, config.weights)
    except WeightsUnavailable as error:  # the geometry and the speed do not depend on them
        print(f"  weights   MISSING: {error}")
    cache = SpeedCache(remeasure=config.remeasure)
    try:
        speed = measure_speed(extraction, cache, prepared_s)
    except TooLarge as error:
        print(f"  time      not measured: {error}")
        return summary
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(
            f"  time      not measured, nor whether caching pays: the disk of {extraction.stores} cannot be"
        )
        print(f"            written ({error.strerror}); choose --stores on a writable disk with free space")
        return summary
    print_time(extraction, speed)
    summary |= {**speed.to_json(), "estimated_seconds": speed.total_seconds}
    if extraction.recipe.fixed_count is None:  # heads are trained on seeded views
        memory = available_bytes() // 2
        advice = caching_advice(trainings, extraction, speed, cache, memory)
        print_advice(extraction, advice)
        summary["caching"] = advice.to_json()
        whole = with_all_levels(extraction)
        of_whole = advice if whole is extraction else caching_advice(trainings, whole, speed, cache, memory)
        ways = compare_ways(whole, of_whole.heads, speed, cache, memory)
        print_ways(ways)
        summary["ways"] = [way.to_json() for way in ways]
    if cache.oldest_s > 60:
        print(f"  measured  up to {duration(cache.oldest_s)} ago; --remeasure measures again")
    return summary


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
        "files": estimate.files,
        "bins": {b.name: b.rows for b in plan.bins},
        "shards": len(plan.shards()),
        "free_bytes": free_bytes(extraction.stores),
        **unusable_summary(extraction.dataset, extraction.labels),
        **padding_summary(extraction.card, plan.bins),
        **patch_padding(extraction.card, plan.rows),
    }


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


def print_geometry(extraction: Extraction, summary: dict[str, Any]) -> None:
    """The numbers of `geometry` as text."""
    plan, views = extraction.estimate.plan, plan_views(extraction)
    print(f"{plan.name} under {extraction.stores}")
    print(f"  rows      {summary['rows']}: {summary['records']} records, {views}")
    if extraction.dataset.subset is not None:
        print(
            f"  subset    {len(extraction.dataset.subset)} of the records; the rows of the others stay empty"
        )
    if not has_device_half(plan.codec):
        print(f"  codec     {plan.codec} has no device half: numpy encodes and decodes it on the host")
    for line in unusable_lines(extraction.dataset, extraction.labels):
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
    if "windows" in summary:
        print(f"  windows   {padding_line(summary)}")
    if summary.get("padding_patches"):
        print(
            f"  padding   {summary['padding_patches']:.0%} of the patches show nothing of an image; the "
            f"backbone attends to them, as ViTDet's does"
        )
    verdict = "fits" if summary["bytes"] <= summary["free_bytes"] else "DOES NOT FIT"
    print(f"  free      {gigabytes(summary['free_bytes'])} on {extraction.stores.absolute()}: {verdict}")


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
        f" {speed.write_seconds * 1e3:.1f} ms to the disk"
    )
    print(
        f"  disk      writes {byte_rate(speed.write_bytes_per_s)} with fsync, reads"
        f" {byte_rate(speed.read_bytes_per_s)}, {byte_rate(speed.cached_bytes_per_s)} from memory"
    )


def print_advice(extraction: Extraction, advice: Advice) -> None:
    """Whether caching pays for each head, what other choices change, and how often a view is seen."""
    for head, problem in advice.problems.items():
        print(f"  caching   {head}: {problem}")
    for forecast in advice.heads:
        print(f"  caching   {forecast.head}: {_verdict(forecast)}")
    if advice.heads:
        where = (
            "memory, which holds all of it" if advice.in_memory else "the disk: it is larger than the memory"
        )
        print(f"            the store is read from {where}")
    for variant in advice.variants:
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
