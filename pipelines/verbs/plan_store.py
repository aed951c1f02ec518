"""`plan`: size and duration of an extraction, before anything is written."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

from extract.backbones.weights import WeightsUnavailable, require_source
from extract.extractor.stage_times import TooLarge
from pipelines.config import ForecastConfig, TrainConfig
from pipelines.forecast.caching_advice import (
    caching_advice,
    training_configs,
)
from pipelines.forecast.codec_choice import choose, zstd_bytes_per_s
from pipelines.forecast.exclusive_probe import UNKNOWN, way_of, way_text
from pipelines.forecast.measurement_cache import SpeedCache
from pipelines.forecast.plan_text import (
    geometry,
    print_advice,
    print_bytes,
    print_costs,
    print_geometry,
    print_notes,
    print_short_time,
    print_time,
    print_ways,
    recipe_lines,
)
from pipelines.forecast.planned_extraction import Extraction, prepare
from pipelines.forecast.request_estimate import request_figures, request_lines
from pipelines.forecast.speed_probe import Speed, measure_speed, program_seconds
from pipelines.forecast.storage_options import compare_ways, with_all_levels
from pipelines.machine.free_memory import available_bytes
from pipelines.next_step import print_next, same_extraction
from pipelines.units import duration
from stores.shards.exclusive import LINK

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of a disk that leave its speed unmeasured; the rest of the plan is printed all the same."""


def run(config: ForecastConfig) -> dict[str, Any]:
    """Prints rows, bytes, bins, files, free space, time and whether caching pays; writes nothing.

    Raises ValueError for a name that is unknown, before anything is measured.
    """
    extraction = prepare(config)
    prepared_s = program_seconds()
    trainings = training_configs(config, extraction)
    summary = {**geometry(extraction), **request_figures(extraction)}
    recipes = recipe_lines(extraction, trainings) if config.details or config.head else []
    if not config.details:
        print_bytes(extraction, summary)
        if config.head:
            summary["costs"] = print_costs(extraction, trainings, of_heads=True)
        summary |= _answer(config, trainings, extraction, prepared_s, recipes, summary)
        print_notes(extraction, summary)
    else:
        print_geometry(extraction, summary)
        summary["costs"] = print_costs(extraction, trainings, of_heads=bool(config.head))
        summary |= _answer(config, trainings, extraction, prepared_s, recipes, summary)
    if "estimated_seconds" in summary and summary["bytes"] <= summary["free_bytes"]:
        print_next(same_extraction(config))
    return summary


def _answer(
    config: ForecastConfig,
    trainings: Sequence[TrainConfig],
    extraction: Extraction,
    prepared_s: float,
    recipes: Sequence[str],
    summary: Mapping[str, Any],
) -> dict[str, Any]:
    """Measures and prints the time and what caching saves; measures nothing where weights or room are
    missing."""
    for line in (*recipes, *_writer_lines(extraction)):
        print(line)
    try:
        require_source(extraction.card, config.weights)
    except WeightsUnavailable as error:
        print(f"  weights   MISSING: {error}")
        print("  time      not measured: an extraction needs the weights first")
        return {}
    if summary["bytes"] > summary["free_bytes"] and not config.details:
        print("  time      not measured: the store needs room first")
        return {}
    cache = SpeedCache(remeasure=config.remeasure)
    speed = _speed(config, extraction, cache, prepared_s)
    if speed is None:
        return {}
    if config.details:
        print_time(extraction, speed)
    else:
        print_short_time(extraction, speed)
    found = {**speed.to_json(), "estimated_seconds": speed.total_seconds}
    if config.details:
        found["codec_choice"] = _print_codec(extraction, speed, cache)
    is_training = extraction.recipe.fixed_count is None  # heads are trained on seeded views
    if is_training and (config.details or config.head):
        found |= _compare(config, trainings, extraction, speed, cache)
    if cache.oldest_s > 60:
        print(f"  measured  up to {duration(cache.oldest_s)} ago; --remeasure measures again")
    return found


def _print_codec(extraction: Extraction, speed: Speed, cache: SpeedCache) -> dict[str, Any] | None:
    """Which codec feeds a training faster here; None of pooled vectors, whose rows are held in memory."""
    plan = extraction.estimate.plan
    if all(level.is_pooled for level in plan.pyramid):
        return None
    in_memory = extraction.estimate.total_bytes <= available_bytes() // 2
    rate = speed.cached_bytes_per_s if in_memory else speed.read_bytes_per_s
    found = choose(rate, zstd_bytes_per_s(cache), min(4, extraction.workers), in_memory=in_memory)
    print(f"  codec     {found.line()}")
    return found.to_json()


def _writer_lines(extraction: Extraction) -> list[str]:
    way = way_of(extraction.stores)
    writers = [] if way in (LINK, UNKNOWN) else [f"  writers   {way_text(way)}"]
    return [*writers, *request_lines(request_figures(extraction))]


def _speed(
    config: ForecastConfig, extraction: Extraction, cache: SpeedCache, prepared_s: float
) -> Speed | None:
    """The measured stages; None, with the reason printed, where they cannot be measured here."""
    try:
        return measure_speed(extraction, cache, prepared_s, in_detail=config.details)
    except TooLarge as error:
        print(f"  time      not measured: {error}")
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(
            f"  time      not measured, nor whether caching pays: the disk of {extraction.stores} cannot be"
        )
        print(f"            written ({error.strerror}); choose --stores on a writable disk with free space")
    return None


def _compare(
    config: ForecastConfig,
    trainings: Sequence[TrainConfig],
    extraction: Extraction,
    speed: Speed,
    cache: SpeedCache,
) -> dict[str, Any]:
    """Prints whether caching pays for the heads and, in detail, what other choices change."""
    memory = available_bytes() // 2
    advice = caching_advice(trainings, extraction, speed, cache, memory)
    print_advice(extraction, advice, in_detail=config.details)
    found: dict[str, Any] = {"caching": advice.to_json()}
    if config.details:
        whole = with_all_levels(extraction)
        of_whole = advice if whole is extraction else caching_advice(trainings, whole, speed, cache, memory)
        ways = compare_ways(whole, of_whole.heads, speed, cache, memory)
        print_ways(ways)
        found["ways"] = [way.to_json() for way in ways]
    return found
