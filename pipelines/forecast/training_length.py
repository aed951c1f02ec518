"""Length of a planned training run, in words, and which recipe a data set of few records is forecast with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.cli.recipes import default_recipe, recipe_name
from pipelines.units import rough_duration

if TYPE_CHECKING:
    from pipelines.config import TrainConfig

MOST_VISITS = 1_000
"""Visits of each record above which a recipe is one of a far larger data set: papers have 12 to 130, small
data some hundreds."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The records that a run draws from."""

    records: int
    kind: str
    """images or videos."""

    def __str__(self) -> str:
        return f"{self.records:,} {self.kind if self.records != 1 else self.kind.removesuffix('s')}"


def is_too_long(training: TrainConfig, records: int) -> bool:
    """Whether a recipe's steps are those of a far larger data set."""
    return training.max_steps * training.batch_size > MOST_VISITS * records


def recipe_line(training: TrainConfig, dataset: str, is_own: bool) -> str | None:
    """The recipe that a head is forecast with, where that is not the paper's for its data set; else None.

    Args:
        dataset: its name.
        is_own: whether it is own data, whose recipes go by its size.
    """
    shipped = default_recipe(dataset, training.head)
    usual = None if shipped is None else recipe_name(shipped)
    steps = f"{training.max_steps:,} steps of {training.batch_size}"
    if is_own:
        return f"{training.head}: {training.recipe}, {steps}"
    if training.recipe is None or usual is None or not training.recipe.startswith("small-"):
        return None
    return (
        f"{training.head}: {usual} is for all of {dataset}; forecast with {training.recipe}, {steps} "
        f"(train-head takes it by --recipe {training.recipe})"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Length:
    """A planned run of one head."""

    head: str
    steps: int
    seconds: float
    visits_per_view: float
    """How often each fixed view is seen."""


def training_line(length: Length, sources: Sources, views: int, warn_visits: int) -> str:
    """Steps, duration and how often a fixed view is seen.

    >>> length = Length(head="linear", steps=2000, seconds=360.0, visits_per_view=100.0)
    >>> training_line(length, Sources(160, "images"), 1, 40)  # doctest: +NORMALIZE_WHITESPACE
    'linear: 160 images: about 2,000 steps, 6 minutes here; each fixed view is seen 100 times; with --views 3,
     33 times: less overfitting to them'

    Args:
        views: of each record.
        warn_visits: more visits of a view than these bring the advice to extract more views.
    """
    line = (
        f"{length.head}: {sources}: about {length.steps:,} steps, {rough_duration(length.seconds)} here; "
        f"each fixed view is seen {_times(length.visits_per_view)}"
    )
    of_record = length.visits_per_view * views
    if length.visits_per_view <= warn_visits:
        return line
    wanted = math.ceil(of_record / warn_visits)
    return f"{line}; with --views {wanted}, {_times(of_record / wanted)}: less overfitting to them"


def _times(visits: float) -> str:
    """
    >>> _times(0.52), _times(1.0), _times(100.2)
    ('0.5 times', 'once', '100 times')
    """
    if visits < 1:
        return f"{visits:.1f} times"
    return "once" if round(visits) == 1 else f"{round(visits):,} times"
