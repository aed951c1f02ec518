"""`demo --dataset coco`: made scenes with things, their stores, a Mask R-CNN trained from them, a table and a
picture."""

from __future__ import annotations

import csv
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.datasets.coco import CATEGORY_IDS, CLASS_NAMES, open_dataset
from extract.sources.byte_sources import decode_image
from pipelines.config import DemoConfig
from pipelines.demo.ade20k import CROP_PX, HEAD, DemoSize
from pipelines.demo.made.thing_files import write_thing_split
from pipelines.demo.made.things import OUTLINES
from pipelines.demo.steps import DemoStores, Training, aligned, check_head, fill_both, train_and_evaluate
from pipelines.live.run_model import load_run
from pipelines.metrics.merge_views import detections
from pipelines.pictures.detections import draw_detections, draw_truth, write_grid
from pipelines.tasks.contract import percent
from pipelines.tasks.detection import TASK, truth_of

logger = logging.getLogger(__name__)

DATASET = "coco"
RECIPE = "demo-coco"
SHOWN_SCENES = 6
TRAINING, VALIDATION = "train2017", "val2017"


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionScore:
    """Scores of a head on the held-out scenes, from 0 to 1."""

    head: str
    run: Path
    box_ap: float
    mask_ap: float
    box_ap50: float
    mask_ap50: float
    seconds: float
    """Of training."""


def run_coco_demo(config: DemoConfig, size: DemoSize) -> dict[str, Any]:
    """Runs the whole path under `config.run`; what is there already (scenes, stores) is used again.

    Returns the figures and where table and picture are. Raises UsageError for an unknown head.
    """
    head = config.head or HEAD
    check_head(head, "detection")
    began, root = time.perf_counter(), Path(config.run)
    data = make_things(root / "data", size)
    stores = fill_stores(data, root / "features", size)
    training = Training(seed=config.seed, max_steps=size.max_steps)
    score = train_and_measure(head, stores, root / "runs", training)
    picture = root / "detections.png"
    draw_scenes(data, score.run, picture, min(SHOWN_SCENES, size.validation_scenes))
    seconds = time.perf_counter() - began
    print(f"\n{_table(score.run)}\ntable {score.run / 'classes.csv'}, picture {picture}, {seconds:.0f} s")
    shown = f"box AP {100 * score.box_ap:.2f} mask AP {100 * score.mask_ap:.2f} (single) {score.head}"
    at_half = f"AP50 {100 * score.box_ap50:.2f} and {100 * score.mask_ap50:.2f}"
    print(f"{shown}, {at_half}, {size.validation_scenes} held-out scenes")
    return {
        "box AP": score.box_ap,
        "mask AP": score.mask_ap,
        "box AP50": score.box_ap50,
        "mask AP50": score.mask_ap50,
        "run": str(score.run),
        "stores": [str(stores.training), str(stores.validation)],
        "picture": str(picture),
        "seconds": round(seconds, 1),
    }


def make_things(folder: Path, size: DemoSize) -> Path:
    """Writes both splits where they are not there yet. Returns the data set's folder."""
    write_thing_split(folder, TRAINING, size.training_scenes, CATEGORY_IDS, CLASS_NAMES)
    data = write_thing_split(folder, VALIDATION, size.validation_scenes, CATEGORY_IDS, CLASS_NAMES)
    logger.info(
        "%d training and %d validation scenes in %s", size.training_scenes, size.validation_scenes, data
    )
    return data


def fill_stores(data: Path, stores: Path, size: DemoSize) -> DemoStores:
    """Extracts both splits; a complete store is left as it is."""
    return fill_both(
        DATASET,
        data,
        stores,
        training={"split": TRAINING, "views": size.views, "crop_size": CROP_PX},
        validation={"split": VALIDATION, "short_side": CROP_PX},
    )


def train_and_measure(
    head: str, stores: DemoStores, runs: Path, training: Training | None = None
) -> DetectionScore:
    """A new run of `head` by the demo's recipe, and its figures."""
    run = train_and_evaluate(head, RECIPE, stores, runs, training)
    box, mask = run.figures["box"], run.figures["mask"]
    return DetectionScore(
        head=head,
        run=run.folder,
        box_ap=box["AP"],
        mask_ap=mask["AP"],
        box_ap50=box["AP50"],
        mask_ap50=mask["AP50"],
        seconds=run.seconds,
    )


def draw_scenes(data: Path, run: Path, picture: Path, scenes: int) -> None:
    """Writes a PNG of the first `scenes` validation scenes: image, truth and detections below each other."""
    dataset, model = open_dataset(data, VALIDATION), load_run(run)
    images, truths, found = [], [], []
    for index, record in enumerate(dataset.records[:scenes]):
        rgb, (height, width) = decode_image(dataset.read_source(index)), record.original_hw
        view = model.recipe.view(DATASET, record, 0, 0)
        targets = dataset.targets(dataset.read_truth(index), view)
        truth = truth_of({name: targets[name] for name in TASK.test_targets}, (height, width))
        images.append(rgb)
        truths.append(draw_truth(rgb, truth, CLASS_NAMES))
        found.append(draw_detections(rgb, detections(model([rgb])[0], (height, width)), CLASS_NAMES))
    write_grid(picture, {"image": images, "truth": truths, "detections": found})


def _table(run: Path) -> str:
    """AP of the made classes in percent, from the table that `evaluate` wrote."""
    with (run / "classes.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] in OUTLINES]
    cells = [("AP in %", "box", "mask", "objects")]
    cells += [
        (row["name"], _percent(row["box_ap"]), _percent(row["mask_ap"]), row["objects"]) for row in rows
    ]
    return aligned(cells)


def _percent(share: str) -> str:
    return percent(float(share) if share else None)
