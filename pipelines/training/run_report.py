"""What a run logs before its first step and prints after its last."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.cli.recipes import default_recipe, own_recipe, recipe_name
from pipelines.config import TrainConfig
from pipelines.feed.datamodule import TrainingData
from pipelines.next_step import command, print_next
from pipelines.pictures.curves import draw_curves
from pipelines.reporting.paper_results import is_of_a_paper, view_differences
from pipelines.runs.metrics_csv import read_metrics
from pipelines.runs.run_folder import CURVES, METRICS
from pipelines.tasks import task_info
from pipelines.training.optimisation.schedules import warmup_steps

logger = logging.getLogger(__name__)


def log_run(config: TrainConfig, data: TrainingData, folder: Path, *, is_validated: bool) -> None:
    """Logs the run's data and length, and where it differs from its recipe and from the papers."""
    logger.info("run %s: head %s on %s", folder, config.head, data.describe())
    dataset = data.identity["dataset"]
    has_paper = "description" not in dataset and _is_papers_recipe(config.recipe, dataset["name"])
    if config.epochs is not None:
        logger.info(
            "%g epochs of %d x %d records: %d steps of %d rows",
            *(config.epochs, config.repeat, data.records, config.max_steps, config.batch_size),
        )
    if not config.resume:
        _log_recipe(config, data)
    if has_paper and (differences := list(view_differences(data.identity, config.head))):
        logger.info("views differ from the paper: %s", "; ".join(differences))
    warmup, recipe = warmup_steps(config.schedule, config.max_steps), config.schedule
    if recipe.warmup_share is None and warmup != recipe.warmup_steps:
        logger.info(
            "warm-up shortened from %d to %d steps (at most 10 %% of the run)", recipe.warmup_steps, warmup
        )
    if not is_validated:
        logger.info(
            "no validation during training: expected exactly one matching complete test store in %s",
            config.stores,
        )


def _is_papers_recipe(recipe: str | None, dataset: str) -> bool:
    """Whether a recipe is one of a paper's for this data set: those are named after it.

    >>> [_is_papers_recipe(recipe, "ade20k") for recipe in ("ade20k-linear", "demo-linear", "my.yaml", None)]
    [True, False, False, False]
    """
    return recipe is not None and recipe.startswith(f"{dataset}-") and not recipe.endswith((".yaml", ".yml"))


def _log_recipe(config: TrainConfig, data: TrainingData) -> None:
    """Which recipe the settings come from and why, and what its length means for this many records."""
    dataset, classes = data.identity["dataset"]["name"], data.identity["dataset"]["num_classes"]
    epochs = config.max_steps * config.batch_size / data.records
    length = "%d steps of %d rows, %.4g epochs of %d records, lr %g"
    values = (config.max_steps, config.batch_size, epochs, data.records, config.optimizer.lr)
    is_own = "description" in data.identity["dataset"]
    task = data.identity["dataset"]["task"]
    shipped = own_recipe(task, config.head, data.records) if is_own else default_recipe(dataset, config.head)
    default = recipe_name(shipped) if shipped is not None else None
    if config.recipe is None:
        why = f"no recipe is shipped for head {config.head} on data set {dataset}"
        if default is not None:
            named = "" if is_own else f"--dataset {dataset} or "
            why = f"recipe {default} was not applied: pass {named}--recipe {default}"
        logger.warning(
            "%s; general settings: " + length + "; change them with --recipe, --epochs or --lr", why, *values
        )
        return
    whose = f"own data of {data.records} records" if is_own else dataset
    why = f"the default for head {config.head} on {whose}" if config.recipe == default else "as given"
    here = f"here with {classes} classes and {data.records} records"
    other = (
        ""
        if is_own or is_of_a_paper(data.identity["dataset"]) or config.recipe != default
        else (f"; made for the official {dataset}, {here}: --epochs sets another length")
    )
    logger.info("recipe %s, %s: " + length + "%s", config.recipe, why, *values, other)


def report_run(
    config: TrainConfig, folder: Path, task: str, scores: Mapping[str, float | None], seconds: float
) -> dict[str, Any]:
    """Draws the curves of a run, prints its last line and returns its summary.

    Args:
        task: of its head.
        scores: of its last validation; empty without one.
        seconds: that training took.
    """
    info = task_info(task)
    draw_curves(folder / METRICS, folder / CURVES, info.score(info.main_score))
    losses = [row["loss"] for row in read_metrics(folder / METRICS) if "loss" in row]
    loss = float(losses[-1])
    shown = "".join(f", {name} {info.score(name).shown(value)}" for name, value in list(scores.items())[:1])
    print(f"{folder}: {config.max_steps} steps, loss {loss:.4f}{shown}")
    print_next(command("evaluate", run=folder), folder / CURVES)
    return {
        "run": str(folder),
        "steps": config.max_steps,
        "loss": loss,
        **scores,
        "seconds": round(seconds, 3),
    }
