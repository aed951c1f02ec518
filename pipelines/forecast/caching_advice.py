"""Whether caching pays here: a training step from the store compared with one on the live backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from extract.planning.plan import needed_bytes
from heads import build_head, head_settings
from heads.errors import HeadError
from pipelines.catalog.usual_heads import usual_heads
from pipelines.cli.arguments import parse
from pipelines.cli.recipes import own_recipe, recipe_name
from pipelines.config import ForecastConfig, TrainConfig
from pipelines.forecast.head_probe import head_step_seconds
from pipelines.forecast.measurement_cache import SpeedCache
from pipelines.forecast.planned_extraction import Extraction
from pipelines.forecast.speed_probe import Speed
from pipelines.forecast.training_length import is_too_long
from pipelines.training.data_settings import settings_of_data
from pipelines.training.run_length import with_steps
from stores.codecs import codec, codec_names, needs_state
from stores.format.plan import StorePlan, feature_row_bytes

WARN_VISITS = 40
"""More visits of each fixed view than this bring a warning.

No paper trains on fixed views. 160,000 steps of 16 rows of ADE20K visit a record 127 times, so that four
views stay below it and one does not. `benchmarks/training/views.py` measures what more views are worth.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadForecast:
    """Training one head, from the store and without it."""

    head: str
    steps: int
    batch_size: int
    head_seconds: float
    """A training step of the head alone."""
    read_seconds: float
    """A batch from the disk or, where the whole store fits, from memory."""
    cached_seconds: float
    """A step from the store: the slower of the two, which overlap."""
    online_seconds: float
    """A step on the live backbone."""
    break_even_runs: int | None
    """Runs after which the extraction has paid; None: never."""
    visits_per_view: float

    @property
    def pays(self) -> bool:
        return self.break_even_runs is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """Another choice of levels or codec."""

    codec: str
    levels: tuple[str, ...]
    bytes: int
    """Of the whole store."""
    heads: dict[str, float | None]
    """Seconds of a cached step of each head; None: it needs a level that is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """The comparison for all heads."""

    heads: tuple[HeadForecast, ...]
    problems: dict[str, str]
    """Heads that cannot be trained from this store, and why."""
    variants: tuple[Variant, ...]
    in_memory: bool
    """Whether the store fits the memory that is free, so that it is read from the disk once."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def training_configs(config: ForecastConfig, extraction: Extraction) -> tuple[TrainConfig, ...]:
    """The training settings of the heads passed, or of the default ones. Nothing is built or measured.

    Raises UsageError for an unknown recipe, HeadError for an unknown head.
    """
    task, found = extraction.dataset.task, []
    for head in config.head or usual_heads(task, extraction.estimate.plan.pyramid.names):
        head_settings(head, task)  # knows every name
        of_store = extraction.estimate.plan.identity["dataset"]
        records = training_records(extraction)
        training = with_steps(_training_config(config, head, extraction), records)
        if config.recipe is None and is_too_long(training, records):  # as 160,000 steps over 80 images
            training = with_steps(_small_training(training, extraction), records)
        found.append(settings_of_data(training, of_store))
    return tuple(found)


def caching_advice(
    trainings: Sequence[TrainConfig],
    extraction: Extraction,
    speed: Speed,
    cache: SpeedCache,
    memory_bytes: int,
) -> Advice:
    """Measures a step of each head, or takes it from the cache, and compares.

    Args:
        trainings: of the heads, see training_configs.
        memory_bytes: that a store may take of the page cache.
    """
    plan = extraction.estimate.plan
    in_memory = extraction.estimate.total_bytes <= memory_bytes
    forecasts: list[HeadForecast] = []
    problems: dict[str, str] = {}
    levels: dict[str, tuple[str, ...]] = {}
    for training in trainings:
        try:
            levels[training.head] = _levels(training, extraction)
            seconds = _head_seconds(training, extraction, cache)
        except HeadError as error:  # a level that is missing, or settings of a recipe for other heads
            problems[training.head] = str(error)
            continue
        read = _read_seconds(plan, levels[training.head], training.batch_size, speed, in_memory)
        forecasts.append(_forecast(training, seconds, read, extraction, speed))
    variants = []
    for other in _other_plans(plan) if forecasts else ():
        total = needed_bytes(other, extraction.dataset)
        heads = {
            f.head: _cached_seconds(f, other, levels[f.head], speed, total <= memory_bytes) for f in forecasts
        }
        variants.append(Variant(codec=other.codec, levels=other.pyramid.names, bytes=total, heads=heads))
    return Advice(heads=tuple(forecasts), problems=problems, variants=tuple(variants), in_memory=in_memory)


def _training_config(config: ForecastConfig, head: str, extraction: Extraction) -> TrainConfig:
    words, recipe = ["--head", head, "--device", config.device], config.recipe
    if recipe is None and "description" in extraction.estimate.plan.identity["dataset"]:
        own = own_recipe(extraction.dataset.task, head, training_records(extraction))
        recipe = None if own is None else recipe_name(own)
    else:
        words += ["--dataset", config.dataset]
    return parse(TrainConfig, words + (["--recipe", recipe] if recipe else []))


def _small_training(training: TrainConfig, extraction: Extraction) -> TrainConfig:
    """The settings of the recipe for small data; the same where the task has none."""
    small = own_recipe(extraction.dataset.task, training.head, training_records(extraction))
    if small is None:
        return training
    words = ["--head", training.head, "--device", training.device, "--recipe", recipe_name(small)]
    return parse(TrainConfig, words)


def _head_seconds(training: TrainConfig, extraction: Extraction, cache: SpeedCache) -> float:
    plan, dataset = extraction.estimate.plan, extraction.dataset
    b = max(plan.bins, key=lambda b: b.rows)
    facts = {
        "head": training.head,
        "settings": dict(training.head_settings),
        "pyramid": plan.pyramid.to_json(),
        "classes": dataset.num_classes,
        "rows": training.batch_size,
        "padded_hw": [b.height_px, b.width_px],
        "frames": plan.frames,
        "device": str(extraction.device),
        "precision": training.precision,
    }

    def measure() -> dict[str, float]:
        size = (b.height_px, b.width_px)
        return {
            "seconds": head_step_seconds(
                training,
                dataset.task,
                plan.pyramid,
                dataset.num_classes,
                size,
                extraction.device,
                plan.frames,
            )
        }

    return cache.get("head", facts, measure)["seconds"]


def _levels(training: TrainConfig, extraction: Extraction) -> tuple[str, ...]:
    """Those the head reads. Raises HeadError where one is missing, or a setting does not fit the head."""
    pyramid, dataset = extraction.estimate.plan.pyramid, extraction.dataset
    head = build_head(
        training.head, dataset.task, pyramid, dataset.num_classes, seed=0, **training.head_settings
    )
    return head.levels


def _read_seconds(plan: StorePlan, levels: Sequence[str], rows: int, speed: Speed, in_memory: bool) -> float:
    """Reading rows of the largest bin from a store of this plan."""
    b = max(plan.bins, key=lambda b: b.rows)
    sizes = feature_row_bytes(plan.pyramid, plan.codec, b.height_px, b.width_px, plan.frames)
    rate = speed.cached_bytes_per_s if in_memory else speed.read_bytes_per_s
    return rows * sum(sizes[level] for level in levels) / rate


def _cached_seconds(
    forecast: HeadForecast, plan: StorePlan, levels: Sequence[str], speed: Speed, in_memory: bool
) -> float | None:
    """A step from a store of another plan; None where that lacks a level."""
    if not set(levels) <= set(plan.pyramid.names):
        return None
    return max(forecast.head_seconds, _read_seconds(plan, levels, forecast.batch_size, speed, in_memory))


def _forecast(
    training: TrainConfig, head_seconds: float, read_seconds: float, extraction: Extraction, speed: Speed
) -> HeadForecast:
    rows, cached = training.batch_size, max(head_seconds, read_seconds)
    online = online_step_seconds(
        decode=rows * speed.decode_seconds,
        forward=rows * speed.forward_seconds,
        head=head_seconds,
        shares_cores=extraction.device.type == "cpu",
    )
    views = (
        len(extraction.estimate.plan.rows) * training_records(extraction) / len(extraction.dataset.records)
    )
    return HeadForecast(
        head=training.head,
        steps=training.max_steps,
        batch_size=rows,
        head_seconds=head_seconds,
        read_seconds=read_seconds,
        cached_seconds=cached,
        online_seconds=online,
        break_even_runs=break_even(speed.total_seconds, training.max_steps * (online - cached)),
        visits_per_view=training.max_steps * rows / views,
    )


def online_step_seconds(*, decode: float, forward: float, head: float, shares_cores: bool) -> float:
    """A step on the live backbone: a GPU is fed by processors, a CPU does everything itself.

    >>> online_step_seconds(decode=1.0, forward=2.0, head=4.0, shares_cores=False)
    6.0
    >>> online_step_seconds(decode=1.0, forward=2.0, head=4.0, shares_cores=True)
    7.0
    """
    return decode + forward + head if shares_cores else max(decode, forward + head)


def break_even(extraction_seconds: float, saved_seconds: float) -> int | None:
    """Runs until what each saves is more than the extraction took; None where a run saves nothing.

    >>> break_even(100.0, 30.0), break_even(100.0, 200.0), break_even(100.0, -1.0)
    (4, 1, None)
    """
    return math.ceil(extraction_seconds / saved_seconds) if saved_seconds > 0 else None


def training_records(extraction: Extraction) -> int:
    """Records that heads are trained on: those that are extracted."""
    dataset = extraction.dataset
    return len(dataset.records if dataset.subset is None else dataset.subset)


def _other_plans(plan: StorePlan) -> list[StorePlan]:
    """The same rows with another codec, and with fewer of the shallow levels, which hold most bytes."""
    others = [
        replace(plan, codec=name)
        for name in codec_names()
        if name != plan.codec and not needs_state(codec(name))
    ]
    names = plan.pyramid.names
    return others + [
        replace(plan, pyramid=plan.pyramid.select(names[start:])) for start in range(1, len(names))
    ]
