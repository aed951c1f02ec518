"""`demo`: made scenes, their stores, heads trained from them, a table and a picture, by ordinary verbs."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.datasets.ade20k import CLASS_NAMES
from heads import head_names
from pipelines import evaluate, extract_features, train_head
from pipelines.arguments import parse
from pipelines.config import DemoConfig, EvaluateConfig, ExtractConfig, TrainConfig
from pipelines.demo.picture import draw_predictions
from pipelines.demo.scenes import CLASS_LABELS, write_split
from pipelines.exit_codes import UsageError
from pipelines.recipe_files import default_recipe

logger = logging.getLogger(__name__)

MODEL = "swinv2-nano"
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
class DemoStores:
    """The folders of the two complete stores."""

    training: Path
    validation: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What one head scores on the held-out scenes."""

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
    scores = [
        train_and_measure(each, stores, root / "runs", seed=config.seed, max_steps=size.max_steps)
        for each in heads
    ]
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
    common: dict[str, Any] = {
        "dataset": "ade20k",
        "data": str(data),
        "model": MODEL,
        "weights": weights,
        "codec": codec,
        "stores": str(stores),
    }
    training = ExtractConfig(**common, split="training", views=size.views, crop_size=CROP_PX)
    validation = ExtractConfig(**common, split="validation", short_side=CROP_PX)
    filled = [extract_features.run(each) for each in (training, validation)]
    return DemoStores(training=Path(filled[0]["store"]), validation=Path(filled[1]["store"]))


def train_and_measure(
    head: str,
    stores: DemoStores,
    runs: Path,
    *,
    seed: int = 0,
    max_steps: int | None = None,
    more: Sequence[str] = (),
) -> Score:
    """A new run of `head` by the demo's recipe, and its figures.

    Args:
        more: further words of `train-head`, such as --lr 0.001.
    """
    run = _new_run(runs, head)
    words = ["--head", head, "--recipe", _recipe(head), "--run", str(run), "--seed", str(seed)]
    words += ["--store", str(stores.training), "--val-store", str(stores.validation)]
    words += [] if max_steps is None else ["--max-steps", str(max_steps)]
    trained = train_head.run(parse(TrainConfig, [*words, *more]))
    figures = evaluate.run(EvaluateConfig(run=str(run), store=str(stores.validation)))
    return Score(
        head=head,
        run=run,
        miou=figures["miou"],
        pixel_accuracy=figures["pixel_accuracy"],
        iou_by_class={name: figures["iou_by_class"][label] for name, label in CLASS_LABELS.items()},
        seconds=trained["seconds"],
    )


def _recipe(head: str) -> str:
    """The demo's small counterpart of the recipe that ADE20K itself has for `head`.

    Raises UsageError for a head that is unknown or too new to have one.
    """
    paper = default_recipe("ade20k", head) if head in head_names("segmentation") else None
    if paper is None or paper.stem not in SMALL_RECIPES:
        raise UsageError(f"--head {head}: expected one of {', '.join(head_names('segmentation'))}")
    return SMALL_RECIPES[paper.stem]


def _new_run(runs: Path, head: str) -> Path:
    """The first free folder runs/<head>-<n>; every demo trains afresh."""
    number = 1
    while (runs / f"{head}-{number}").exists():
        number += 1
    return runs / f"{head}-{number}"


def _write_table(root: Path, scores: Sequence[Score]) -> str:
    """table.csv and table.txt: IoU in percent by class and head. Returns the text."""
    rows = [
        (name, *(_percent(score.iou_by_class[name]) for score in scores))
        for name in sorted(CLASS_LABELS, key=CLASS_NAMES.index)
    ]
    rows += [
        ("mIoU", *(_percent(score.miou) for score in scores)),
        ("pixel accuracy", *(_percent(score.pixel_accuracy) for score in scores)),
        ("training seconds", *(f"{score.seconds:.0f}" for score in scores)),
    ]
    header = ("IoU in %", *(score.head for score in scores))
    with (root / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    lines = [f"{name:<18}" + "".join(f"{cell:>10}" for cell in cells) for name, *cells in (header, *rows)]
    text = "\n".join(lines)
    (root / "table.txt").write_text(text + "\n")
    return text


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _last_line(scores: Sequence[Score], scenes: int) -> str:
    *others, last = scores
    beside = "".join(f", {score.head} {100 * score.miou:.2f}" for score in others)
    return f"mIoU {100 * last.miou:.2f} (single) {last.head}{beside}, {scenes} held-out scenes"
