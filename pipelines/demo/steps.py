"""Steps shared by the demos: fill two stores, train and evaluate heads, write a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heads import head_names
from pipelines.cli.arguments import parse
from pipelines.config import EvaluateConfig, ExtractConfig, TrainConfig
from pipelines.errors import UsageError
from pipelines.verbs import evaluate, extract_features, train_head

MODEL = "swinv2-nano"
_CELL_WIDTH = 10
"""Of a table's columns, in characters; more where a cell is longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoStores:
    """The folders of the two complete stores."""

    training: Path
    validation: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How a demo's recipe is followed."""

    seed: int = 0
    max_steps: int | None = None
    """None: the recipe's."""
    more: tuple[str, ...] = ()
    """Further words of `train-head`, such as --lr 0.001."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoRun:
    """A trained head and what was measured of it."""

    folder: Path
    figures: Mapping[str, Any]
    """The summary of `evaluate` on the held-out split."""
    seconds: float
    """Of training."""


def check_head(head: str, task: str) -> None:
    """Raises UsageError, listing the known ones, for a head that the task does not have."""
    if head not in head_names(task):
        raise UsageError(f"--head {head}: expected one of {', '.join(head_names(task))}")


def fill_both(
    dataset: str, data: Path, stores: Path, *, training: Mapping[str, Any], validation: Mapping[str, Any]
) -> DemoStores:
    """Extracts both splits; a complete store is left as it is.

    Args:
        training, validation: the settings of ExtractConfig that differ between the two.
    """
    common: dict[str, Any] = {"dataset": dataset, "data": str(data), "model": MODEL, "stores": str(stores)}
    filled = [extract_features.run(ExtractConfig(**common, **own)) for own in (training, validation)]
    return DemoStores(training=Path(filled[0]["store"]), validation=Path(filled[1]["store"]))


def train_and_evaluate(
    head: str, recipe: str, stores: DemoStores, runs: Path, training: Training | None = None
) -> DemoRun:
    """A new run of `head` under `runs`, and its figures."""
    how, run = training or Training(), _new_run(runs, head)
    words = ["--head", head, "--recipe", recipe, "--run", str(run), "--seed", str(how.seed)]
    words += ["--store", str(stores.training), "--val-store", str(stores.validation)]
    words += [] if how.max_steps is None else ["--max-steps", str(how.max_steps)]
    trained = train_head.run(parse(TrainConfig, [*words, *how.more]))
    figures = evaluate.run(EvaluateConfig(run=str(run), store=str(stores.validation)))
    return DemoRun(folder=run, figures=figures, seconds=trained["seconds"])


def _new_run(runs: Path, head: str) -> Path:
    """The first free folder runs/<head>-<n>; every demo trains afresh."""
    number = 1
    while (runs / f"{head}-{number}").exists():
        number += 1
    return runs / f"{head}-{number}"


def write_table(root: Path, rows: Sequence[Sequence[str]]) -> str:
    """table.csv and table.txt of rows, the first being the header. Returns the text."""
    with (root / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    text = aligned(rows)
    (root / "table.txt").write_text(text + "\n")
    return text


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text: a column of names, and columns of figures that end below each other.

    >>> print(aligned([("IoU in %", "linear"), ("wall", "53.81")]))
    IoU in %              linear
    wall                   53.81
    """
    width = max(_CELL_WIDTH, *(2 + len(cell) for _, *cells in rows for cell in cells))
    return "\n".join(f"{name:<18}" + "".join(f"{cell:>{width}}" for cell in cells) for name, *cells in rows)
