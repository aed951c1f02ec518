"""`demo`: made scenes with label maps, their stores, heads trained from them, a table and a picture."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.datasets.ade20k import CLASS_NAMES
from pipelines.cli.recipes import default_recipe
from pipelines.config import DemoConfig
from pipelines.demo.made.scenes import CLASS_LABELS, write_split
from pipelines.demo.picture import draw_predictions
from pipelines.demo.steps import (
    DemoStores,
    Training,
    check_head,
    fill_both,
    train_and_evaluate,
    write_table,
)
from pipelines.errors import UsageError
from pipelines.tasks.contract import percent

logger = logging.getLogger(__name__)

CROP_PX = 128
LINEAR, HEAD = "linear", "bifpn1"
SHOWN_SCENES = 6
SMALL_RECIPES = {
    "ade20k-linear": "demo-linear",
    "ade20k-upernet-frozen": "demo-upernet",
    "ade20k-m2f-frozen": "demo-m2f",
}
"""Recipe of ADE20K -> what the demo trains the same heads by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSize:
    """How much is made and trained; the defaults take less than 4 minutes on two processor cores."""

    training_scenes: int = 240
    validation_scenes: int = 60
    views: int = 4
    """Seeded views of each training scene."""
    max_steps: int | None = None
    """Of each head; None: the recipes'."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Scores of one head on the held-out scenes."""

    head: str
    run: Path
    miou: float
    pixel_accuracy: float
    iou_by_class: Mapping[str, float | None]
    seconds: float
    """Of training."""


def run_demo(config: DemoConfig, size: DemoSize) -> dict[str, Any]:
    """Runs the whole path under `config.run`; what is there already (scenes, stores) is used again.

    Returns the figures of each head and where table and picture are. Raises UsageError for an unknown head.
    """
    head = config.head or HEAD
    _recipe(head)
    began, root = time.perf_counter(), Path(config.run)
    data = make_scenes(root / "data", size)
    stores = fill_stores(data, root / "features", size)
    heads = dict.fromkeys((LINEAR, head))
    training = Training(seed=config.seed, max_steps=size.max_steps)
    scores = [train_and_measure(each, stores, root / "runs", training) for each in heads]
    table = _write_table(root, scores)
    picture = root / "predictions.png"
    draw_predictions(data, scores[-1].run, picture, min(SHOWN_SCENES, size.validation_scenes))
    seconds = time.perf_counter() - began
    print(f"\n{table}\ntable {root / 'table.csv'}, picture {picture}, {seconds:.0f} s")
    print(_last_line(scores, size.validation_scenes))
    return {
        "mIoU": scores[-1].miou,
        "heads": {score.head: _figures(score) for score in scores},
        "stores": [str(stores.training), str(stores.validation)],
        "table": str(root / "table.csv"),
        "picture": str(picture),
        "seconds": round(seconds, 1),
    }


def _figures(score: Score) -> dict[str, Any]:
    return {"mIoU": score.miou, "pixel_accuracy": score.pixel_accuracy, "run": str(score.run)}


def make_scenes(folder: Path, size: DemoSize) -> Path:
    """Writes both splits where they are not there yet. Returns the data set's folder."""
    began = time.perf_counter()
    write_split(folder, "training", size.training_scenes)
    data = write_split(folder, "validation", size.validation_scenes)
    logger.info(
        "%d training and %d validation scenes in %s, %.1f s",
        size.training_scenes,
        size.validation_scenes,
        data,
        time.perf_counter() - began,
    )
    return data


def fill_stores(
    data: Path, stores: Path, size: DemoSize, *, weights: str = "timm", codec: str = "int8"
) -> DemoStores:
    """Extracts both splits; a complete store is left as it is.

    Args:
        weights: as --weights; timm is the bundled backbone.
    """
    made = {"weights": weights, "codec": codec}
    return fill_both(
        "ade20k",
        data,
        stores,
        training={**made, "split": "training", "views": size.views, "crop_size": CROP_PX},
        validation={**made, "split": "validation", "short_side": CROP_PX},
    )


def train_and_measure(head: str, stores: DemoStores, runs: Path, training: Training | None = None) -> Score:
    """A new run of `head` by the demo's recipe, and its figures."""
    run = train_and_evaluate(head, _recipe(head), stores, runs, training)
    return Score(
        head=head,
        run=run.folder,
        miou=run.figures["miou"],
        pixel_accuracy=run.figures["pixel_accuracy"],
        iou_by_class={name: run.figures["iou_by_class"][label] for name, label in CLASS_LABELS.items()},
        seconds=run.seconds,
    )


def _recipe(head: str) -> str:
    """The demo's small counterpart of the recipe that ADE20K itself has for `head`.

    Raises UsageError for a head that is unknown or too new to have one.
    """
    check_head(head, "segmentation")
    paper = default_recipe("ade20k", head)
    if paper is None or paper.stem not in SMALL_RECIPES:
        raise UsageError(f"--head {head}: the demo has no recipe for it; expected a head such as {HEAD}")
    return SMALL_RECIPES[paper.stem]


def _write_table(root: Path, scores: Sequence[Score]) -> str:
    """table.csv and table.txt: IoU in percent by class and head. Returns the text."""
    rows = [
        (name, *(percent(score.iou_by_class[name]) for score in scores))
        for name in sorted(CLASS_LABELS, key=CLASS_NAMES.index)
    ]
    rows += [
        ("mIoU", *(percent(score.miou) for score in scores)),
        ("pixel accuracy", *(percent(score.pixel_accuracy) for score in scores)),
        ("training seconds", *(f"{score.seconds:.0f}" for score in scores)),
    ]
    return write_table(root, [("IoU in %", *(score.head for score in scores)), *rows])


def _last_line(scores: Sequence[Score], scenes: int) -> str:
    *others, last = scores
    beside = "".join(f", {score.head} {100 * score.miou:.2f}" for score in others)
    return f"mIoU {100 * last.miou:.2f} (single) {last.head}{beside}, {scenes} held-out scenes"
