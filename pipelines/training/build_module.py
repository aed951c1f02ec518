"""The head of a run, built for the levels and targets of its data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch

from heads import build_head, former_defaults, head_names
from heads.errors import HeadError
from pipelines.config import TrainConfig
from pipelines.errors import UsageError
from pipelines.feed.datamodule import TrainingData
from pipelines.runs.run_folder import read_run
from pipelines.training.data_settings import settings_of_data
from pipelines.training.module import HeadModule

_HOW_TO_HAVE = {"stuff": "extract COCO with --stuff stuffthingmaps or --stuff panoptic, or "}
"""How a store comes to hold a target, by name."""

logger = logging.getLogger(__name__)


def build_module(config: TrainConfig, data: TrainingData) -> HeadModule:
    """The head of a run; Sets `data.levels` to those it reads.

    Raises UsageError if it cannot be built on the available levels, or needs targets that the data lacks.
    """
    pyramid = data.pyramid.select(config.levels) if config.levels else data.pyramid
    dataset = data.identity["dataset"]
    config = settings_of_data(config, dataset)
    try:
        head = build_head(
            config.head,
            dataset["task"],
            pyramid,
            dataset["num_classes"],
            seed=config.seed,
            **_settings(config, dataset["task"]),
        )
    except ValueError as error:
        raise UsageError(f"{error} ({data.describe()})") from error
    if missing := [name for name in head.target_names if name not in data.target_names]:
        raise UsageError(
            f"head {config.head} needs the targets {', '.join(missing)}, which {data.describe()} lacks; "
            f"{_HOW_TO_HAVE.get(missing[0], '')}{_heads_to_take(config.head, data)}"
        )
    data.levels = head.levels
    return HeadModule(head, config)


def counted_costs(config: TrainConfig, data: TrainingData, levels: Sequence[str]) -> dict[str, Any]:
    """Fields of `RunCosts` that are counted: of the head, and of a row of its data."""
    found, dataset = dict(data.row_costs), data.identity["dataset"]
    if data.padded_hw is None:
        return found
    # Late: counting takes a tenth of a second to load.
    from pipelines.costs.head_costs import head_costs

    config = settings_of_data(config, dataset, warn=False)
    pyramid, task = data.pyramid.select(levels), dataset["task"]
    try:
        costs = head_costs(
            config.head,
            task,
            pyramid,
            dataset["num_classes"],
            data.padded_hw,
            frames=data.frames,
            **_settings(config, task),
        )
    except Exception as error:  # a head of another package may not be countable; it trains all the same
        logger.warning("multiply-adds of head %s are not counted: %s", config.head, error)
        return found
    return {
        **found,
        "neck_parameters": costs.neck_parameters,
        "multiply_adds": costs.multiply_adds,
        "neck_multiply_adds": costs.neck_multiply_adds,
    }


def _settings(config: TrainConfig, task: str) -> dict[str, Any]:
    revision = head_revision(config, task)
    return former_defaults.recorded_settings(config.head, task, config.head_settings, revision)


def head_revision(config: TrainConfig, task: str) -> int:
    """Of the head's defaults: today's for a new run, those it began with for one that is resumed.

    Raises UsageError where there is no run to resume.
    """
    if config.resume and config.run is not None:
        begun = read_run(Path(config.run))
        if begun.head == config.head:
            return begun.head_revision
    return former_defaults.head_revision(config.head, task)


def _heads_to_take(instead_of: str, data: TrainingData) -> str:
    """Advice: the heads that can be trained on the data, the one with the most similar name first."""
    task, num_classes = data.identity["dataset"]["task"], data.identity["dataset"]["num_classes"]
    names = []
    for name in head_names(task):
        try:
            with torch.device("meta"):  # without memory or first weights
                head = build_head(name, task, data.pyramid, num_classes)
        except HeadError:  # of levels that are not there
            continue
        if set(head.target_names) <= set(data.target_names):
            names.append(name)
    if not names:
        return "no head can be trained on it; extract a training split"
    best, *others = sorted(names, key=lambda name: -SequenceMatcher(a=instead_of, b=name).ratio())
    return f"use {best}" + (f" or one of: {', '.join(sorted(others))}" if others else "")
