"""`demo --dataset pose`: made stick figures, their stores, a head trained from them, a table, a picture."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from extract.datasets import open_dataset
from extract.sources.byte_sources import decode_image
from heads.building import build_head
from heads.contract import Head
from pipelines.accuracy.pose_figures import PoseFigures
from pipelines.config import DemoConfig
from pipelines.demo.made.figure_files import write_figure_split
from pipelines.demo.steps import DemoStores, Training, check_head, fill_both, train_and_evaluate, write_table
from pipelines.evaluation.store_views import store_views
from pipelines.live.predict_pose import poses_in
from pipelines.live.run_model import load_run
from pipelines.metrics.keypoint_ap import kept_poses
from pipelines.pictures.detections import write_grid
from pipelines.pictures.skeletons import draw_points, draw_poses
from pipelines.runs.trained_head import load_head
from pipelines.tasks import TestView, task_for
from stores.keypoints import rule_from_json
from stores.reading.reader import open_store

logger = logging.getLogger(__name__)

DATASET = "coco_pose"
RECIPE = "demo-pose"
HEAD = "pose-deconv4x256"
CROP_PX = 160
SHOWN_SCENES = 6
TRAINING, VALIDATION = "train2017", "val2017"


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseDemoSize:
    """How much is made and trained; the defaults take less than 3 minutes on two processor cores."""

    training_scenes: int = 400
    validation_scenes: int = 60
    views: int = 2
    """Seeded views of each training figure."""
    max_steps: int | None = None
    """None: the recipe's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseScores:
    """Of the held-out figures, from 0 to 1."""

    run: Path
    ap: float
    ap50: float
    untrained_ap50: float
    """Of the same head with its first weights."""
    shuffled_ap50: float
    """Of the trained head, each figure with the features of another one."""
    seconds: float
    """Of training."""


def run_pose_demo(config: DemoConfig, size: PoseDemoSize) -> dict[str, Any]:
    """Runs the whole path under `config.run`; what is there already (scenes, stores) is used again.

    Returns the figures and where table and picture are. Raises UsageError for an unknown head.
    """
    head = config.head or HEAD
    check_head(head, "pose")
    began, root = time.perf_counter(), Path(config.run)
    data = make_figures(root / "data", size)
    stores = fill_stores(data, root / "features", size)
    training = Training(seed=config.seed, max_steps=size.max_steps)
    scores = train_and_measure(head, stores, root / "runs", training)
    picture = root / "poses.png"
    draw_scenes(data, scores.run, picture, min(SHOWN_SCENES, size.validation_scenes))
    shares = (scores.ap50, scores.untrained_ap50, scores.shuffled_ap50)
    row = ("AP50", *(f"{100 * share:.2f}" for share in shares))
    table = write_table(root, [("in %", head, "untrained", "shuffled"), row])
    seconds = time.perf_counter() - began
    print(f"\n{table}\ntable {root / 'table.csv'}, picture {picture}, {seconds:.0f} s")
    print(
        f"AP {100 * scores.ap:.2f} AP50 {100 * scores.ap50:.2f} (flip) {head}, {size.validation_scenes} "
        "held-out scenes"
    )
    return {
        "AP": scores.ap,
        "AP50": scores.ap50,
        "untrained AP50": scores.untrained_ap50,
        "shuffled AP50": scores.shuffled_ap50,
        "run": str(scores.run),
        "stores": [str(stores.training), str(stores.validation)],
        "table": str(root / "table.csv"),
        "picture": str(picture),
        "seconds": round(seconds, 1),
    }


def make_figures(folder: Path, size: PoseDemoSize) -> Path:
    """Writes both splits where they are not there yet. Returns the data set's folder."""
    write_figure_split(folder, TRAINING, size.training_scenes)
    data = write_figure_split(folder, VALIDATION, size.validation_scenes)
    logger.info(
        "%d training and %d validation scenes in %s", size.training_scenes, size.validation_scenes, data
    )
    return data


def fill_stores(data: Path, stores: Path, size: PoseDemoSize) -> DemoStores:
    """Extracts both splits; a complete store is left as it is."""
    return fill_both(
        DATASET,
        data,
        stores,
        training={"split": TRAINING, "views": size.views, "crop_size": CROP_PX},
        validation={"split": VALIDATION, "crop_size": None, "short_side": CROP_PX},
    )


def train_and_measure(
    head: str, stores: DemoStores, runs: Path, training: Training | None = None
) -> PoseScores:
    """A new run of `head` by the demo's recipe, and its figures beside those that show what it learnt."""
    run = train_and_evaluate(head, RECIPE, stores, runs, training)
    trained, _ = load_head(run.folder, torch.device("cpu"))
    settings: Any = trained.settings
    fresh = build_head(
        head, "pose", trained.source, trained.num_classes, seed=0,
        kernel=settings.kernel, width=settings.width, input_norm=settings.input_norm,
    ).eval()  # fmt: skip
    return PoseScores(
        run=run.folder,
        ap=run.figures["keypoints"]["AP"],
        ap50=run.figures["keypoints"]["AP50"],
        untrained_ap50=_ap50(figures_of(fresh, stores.validation)),
        shuffled_ap50=_ap50(figures_of(trained, stores.validation, shuffled=True)),
        seconds=run.seconds,
    )


def figures_of(head: Head, store: Path, *, shuffled: bool = False) -> PoseFigures:
    """Figures of a head on a test store.

    Args: shuffled: each record gets the features of the next one in the store.
    """
    device = torch.device("cpu")
    with open_store(store) as opened:
        task: Any = task_for(opened.identity["dataset"])
        views: Iterable[TestView] = store_views(opened, head.levels, task.test_targets, device)
        found: PoseFigures = task.measure(
            head, _shifted(list(views)) if shuffled else views, views_name="flip", device=device, bf16=False
        )
    return found


def _shifted(views: list[TestView]) -> Iterator[TestView]:
    """Each view with the features of the same view of the next record."""
    of_record = len(views) // len({view.key for view in views})
    for place, view in enumerate(views):
        yield replace(view, features=views[(place + of_record) % len(views)].features)


def _ap50(figures: PoseFigures) -> float:
    return figures.numbers["AP50"] or 0.0


def draw_scenes(data: Path, run: Path, picture: Path, scenes: int) -> None:
    """Writes a PNG of the first `scenes` validation scenes: image, truth and poses below each other."""
    dataset: Any = open_dataset(DATASET, data, VALIDATION)
    model, rule = load_run(run), rule_from_json(dataset.class_names, dataset.task_facts)
    rows: dict[str, list[Any]] = {"image": [], "truth": [], "poses": []}
    shown: dict[str, list[int]] = {}
    for index, record in enumerate(dataset.records):
        shown.setdefault(record.source, []).append(index)
    for indices in list(shown.values())[:scenes]:
        rgb = truth = decode_image(dataset.read_source(indices[0]))
        for person in dataset.read_truth(indices[0]).persons:
            points, shown_K = person.keypoints[:, :2], person.keypoints[:, 2] > 0
            truth = draw_points(truth, points, shown_K, rule, max(person.xywh[2:]))
        boxes = [(dataset.records[index].box, 1.0) for index in indices]
        poses = kept_poses(poses_in(model, rgb, boxes, rule), rule.sigmas)
        for name, each in (("image", rgb), ("truth", truth), ("poses", draw_poses(rgb, poses, rule))):
            rows[name].append(each)
    write_grid(picture, rows)
