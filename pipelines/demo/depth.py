"""`demo --dataset depth`: made rooms with true depth, and a depth head trained from their store.

Two rulers stand beside the head: the mean depth map of the training rooms, which knows where an image is far
and nothing of the image at hand, and the same head trained on features of other rooms.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from extract.datasets import Dataset, open_dataset
from extract.sources.byte_sources import decode_image
from pipelines.config import DemoConfig, DescribeConfig
from pipelines.demo.made.rooms import write_rooms
from pipelines.demo.steps import (
    DemoRun,
    Training,
    check_head,
    fill_both,
    train_and_evaluate,
    write_table,
)
from pipelines.feed.joined_stores import JoinedStores, Rows
from pipelines.live.run_model import load_run
from pipelines.metrics.depth import counted_pixels, depth_errors
from pipelines.pictures.depth_maps import record_rows
from pipelines.pictures.records import RecordPicture, write_records
from pipelines.tasks.info.depth import INFO
from pipelines.verbs import describe_data

logger = logging.getLogger(__name__)

HEAD, RECIPE = "depth-linear", "demo-depth"
DECONV = "depth-deconv2x32"
CROP_PX = 192
WIDTH = 16
"""Of the last convolutions of depth-deconv2x32, narrow for a CPU."""
SHOWN = 4
SHUFFLED = "-of-other-rooms"
Metres = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthDemoSize:
    """How much is made and trained; the defaults take less than 3 minutes on two processor cores."""

    training_images: int = 400
    test_images: int = 40
    views: int = 1
    """Seeded views of each training image."""
    max_steps: int | None = None
    """None: the recipe's."""


def run_depth_demo(config: DemoConfig, size: DepthDemoSize) -> dict[str, Any]:
    """Runs the whole path under `config.run`; what is there already (images, description, stores) is used
    again. Raises UsageError for an unknown head."""
    head = config.head or HEAD
    check_head(head, "depth")
    began, root = time.perf_counter(), Path(config.run)
    data, description = root / "rooms", root / "rooms.yaml"
    write_rooms(data, {"train": size.training_images, "test": size.test_images})
    if not description.exists():
        describe_data.run(DescribeConfig(data=str(data), out=str(description)))
    stores = fill_both(
        str(description),
        data,
        root / "features",
        training={"split": "train", "views": size.views, "crop_size": CROP_PX},
        validation={"split": "test"},
    )
    training = Training(seed=config.seed, max_steps=size.max_steps, more=_more(head))
    run = train_and_evaluate(head, RECIPE, stores, root / "runs", training)
    with features_of_other_rooms(config.seed):
        shuffled = train_and_evaluate(head, RECIPE, stores, root / f"runs{SHUFFLED}", training)
    mean_map = mean_map_rmse(str(description), data)
    table = _write_table(root, run, shuffled, mean_map, head)
    picture = root / "depths.png"
    _draw(open_dataset(str(description), data, "test"), run, picture, min(SHOWN, size.test_images))
    seconds, rmse, of_others = time.perf_counter() - began, run.figures["rmse"], shuffled.figures["rmse"]
    print(f"\n{table}\ndescription {description}, picture {picture}, {seconds:.0f} s")
    print(
        f"RMSE {INFO.score('RMSE').shown(rmse)} (single) {head}, {size.test_images} rooms kept apart: "
        f"{rmse / mean_map:.2f} of the mean depth map's, {rmse / of_others:.2f} of that on features of other "
        "rooms"
    )
    return {
        "rmse": rmse,
        "rmse_mean_map": mean_map,
        "rmse_features_of_other_rooms": of_others,
        "description": str(description),
        "run": str(run.folder),
        "stores": [str(stores.training), str(stores.validation)],
        "table": str(root / "table.csv"),
        "picture": str(picture),
        "seconds": round(seconds, 1),
    }


def _more(head: str) -> tuple[str, ...]:
    return ("--head-settings.width", str(WIDTH)) if head == DECONV else ()


@contextmanager
def features_of_other_rooms(seed: int) -> Iterator[None]:
    """Trains on every row's targets beside another row's features, as long as it lasts."""
    with_right_ones = JoinedStores.read_targets

    def of_another_row(self: JoinedStores, rows: Rows, names: Sequence[str]) -> Any:
        elsewhere = np.random.default_rng(seed).permutation(len(self))
        return with_right_ones(self, elsewhere[rows], names)

    JoinedStores.read_targets = of_another_row  # type: ignore[method-assign]
    try:
        yield
    finally:
        JoinedStores.read_targets = with_right_ones  # type: ignore[method-assign]


def mean_map_rmse(description: str, data: Path) -> float:
    """RMSE in metres, as of a head, of predicting the mean depth map of the training images for every test
    image. All images are of one size."""
    train, test = (open_dataset(description, data, split) for split in ("train", "test"))
    facts = train.task_facts  # type: ignore[attr-defined]
    total, count = (np.zeros(train.records[0].original_hw) for _ in range(2))
    for index in range(len(train.records)):
        metres = train.read_truth(index) / facts["units_per_m"]
        total, count = total + metres, count + (metres > 0)
    mean = torch.from_numpy(total / np.maximum(count, 1))
    errors = []
    for index in range(len(test.records)):
        truth = torch.from_numpy(test.read_truth(index) / facts["units_per_m"])
        counted = counted_pixels(truth, facts["crop"], facts["min_depth_m"], facts["max_depth_m"])
        errors.append(depth_errors(mean, truth, counted)[0])
    return float(torch.stack(errors).mean())


def _write_table(root: Path, run: DemoRun, shuffled: DemoRun, mean_map: float, head: str) -> str:
    """table.csv and table.txt. Returns the text."""
    names = ("RMSE", "d1", "AbsRel", "SILog")
    rows = [
        (
            name if name != "RMSE" else "RMSE in m",
            *(f"{each.figures[name.lower()]:.3f}" for each in (run, shuffled)),
            f"{mean_map:.3f}" if name == "RMSE" else "-",
        )
        for name in names
    ]
    rows.append(("training seconds", f"{run.seconds:.0f}", f"{shuffled.seconds:.0f}", "-"))
    return write_table(root, [("", head, "features of other rooms", "mean depth map"), *rows])


def _draw(test: Dataset, run: DemoRun, picture: Path, shown: int) -> None:
    """Held-out rooms: image, truth, prediction and error."""
    model, pictures = load_run(run.folder), []
    for index in range(shown):
        rgb = decode_image(test.read_source(index))
        truth = test.read_truth(index) / test.task_facts["units_per_m"]  # type: ignore[attr-defined]
        predicted = model([rgb])[0].numpy()
        error = float(np.sqrt(np.mean((predicted - truth)[truth > 0] ** 2)))
        rows = record_rows(rgb, truth.astype(np.float32), predicted)
        pictures.append(RecordPicture(test.records[index].key, f"RMSE {error:.2f} m", rows))
    write_records(picture, pictures)
