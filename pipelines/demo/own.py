"""`demo --dataset own`: made garden pictures with masks of own classes, from `describe` to a picture."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from extract.datasets import open_dataset
from extract.sources.byte_sources import decode_image
from pipelines.config import DemoConfig, DescribeConfig
from pipelines.demo.made.scenes import CLASS_LABELS, make_scene
from pipelines.demo.picture import draw_columns
from pipelines.demo.steps import DemoRun, Training, check_head, fill_both, train_and_evaluate, write_table
from pipelines.live.run_model import load_run
from pipelines.pictures.palette import palette
from pipelines.tasks.contract import percent
from pipelines.verbs import describe_data

logger = logging.getLogger(__name__)

GARDEN = {
    "sky": "open sky",
    "mountain": "far hill",
    "building": "greenhouse",
    "wall": "brick bed",
    "tree": "fruit tree",
    "grass": "lawn",
    "water": "pond",
    "road": "paved way",
    "field": "vegetable bed",
    "fence": "fence",
    "rock": "boulder",
    "path": "gravel path",
}
"""Pattern of the made scenes -> own class."""
CLASS_NAMES = tuple(GARDEN.values())
HEAD, RECIPE = "bifpn1", "small-segmentation"
CROP = (96, 128)
SHOWN = 6
_LABEL = {CLASS_LABELS[pattern]: number for number, pattern in enumerate(GARDEN)}
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnDemoSize:
    """How much is made and trained; the defaults take less than 2 minutes on two processor cores."""

    training_images: int = 120
    test_images: int = 30
    views: int = 2
    """Seeded views of each training image."""
    epochs: int = 14
    width: int = 64
    """Of the head's maps, narrow for a CPU."""


def run_own_demo(config: DemoConfig, size: OwnDemoSize) -> dict[str, Any]:
    """Runs the whole path under `config.run`; what is there already (images, description, stores) is used
    again. Raises UsageError for an unknown head."""
    head = config.head or HEAD
    check_head(head, "segmentation")
    began, root = time.perf_counter(), Path(config.run)
    data, description = root / "garden", root / "garden.yaml"
    write_garden(data, {"train": size.training_images, "test": size.test_images})
    if not description.exists():
        describe_data.run(DescribeConfig(data=str(data), out=str(description)))
    stores = fill_both(
        str(description),
        data,
        root / "features",
        training={"split": "train", "views": size.views, "crop_size": f"{CROP[0]}x{CROP[1]}"},
        validation={"split": "test", "short_side": CROP[0]},
    )
    run = train_and_evaluate(head, RECIPE, stores, root / "runs", _training(config.seed, head, size))
    table = _write_table(root, head, run)
    picture = root / "predictions.png"
    _draw(str(description), run.folder, picture, min(SHOWN, size.test_images))
    seconds = time.perf_counter() - began
    print(f"\n{table}\ndescription {description}, picture {picture}, {seconds:.0f} s")
    print(f"mIoU {100 * run.figures['miou']:.2f} (single) {head}, {size.test_images} images kept apart")
    return {
        "mIoU": run.figures["miou"],
        "description": str(description),
        "stores": [str(stores.training), str(stores.validation)],
        "table": str(root / "table.csv"),
        "picture": str(picture),
        "seconds": round(seconds, 1),
    }


def write_garden(folder: Path, splits: dict[str, int]) -> None:
    """images/<split>/*.jpg, masks/<split>/*.png of so many images, and classes.txt; what is there stays."""
    for split, count in splits.items():
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = (
                folder / kind / split / f"garden{number:04d}.{ending}"
                for kind, ending in (("images", "jpg"), ("masks", "png"))
            )
            if mask.exists():  # it is written last
                continue
            scene = make_scene(f"garden {split}", number)
            Image.fromarray(scene.rgb).save(image, quality=92)
            labels = np.vectorize(_LABEL.__getitem__, otypes=[np.uint8])(scene.labels)
            Image.fromarray(labels).save(mask)
    (folder / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")


def _training(seed: int, head: str, size: OwnDemoSize) -> Training:
    """The recipe of small data at the demo's length; heads with a width are narrow and learn faster."""
    more = ["--epochs", str(size.epochs)]
    if head != "linear" and not head.startswith("m2f"):
        more += ["--lr", "0.006", "--head-settings.width", str(size.width), "--head-settings.norm", "gn"]
    return Training(seed=seed, more=(*more, "--val-every", "0"))


def _write_table(root: Path, head: str, run: DemoRun) -> str:
    """table.csv and table.txt: IoU in percent by own class. Returns the text."""
    rows = [(name, percent(iou)) for name, iou in zip(CLASS_NAMES, run.figures["iou_by_class"], strict=True)]
    rows += [
        ("mIoU", percent(run.figures["miou"])),
        ("pixel accuracy", percent(run.figures["pixel_accuracy"])),
        ("training seconds", f"{run.seconds:.0f}"),
    ]
    return write_table(root, [("IoU in %", head), *rows])


def _draw(description: str, run: Path, picture: Path, shown: int) -> None:
    """Images kept apart, truth and predictions below each other, with the names of the classes."""
    dataset, model = open_dataset(description, split="test"), load_run(run)
    columns = []
    for index in range(shown):
        rgb = decode_image(dataset.read_source(index))
        predicted = model([rgb])[0].argmax(0).numpy().astype(np.uint8)
        columns.append((rgb, _coloured(dataset.read_truth(index)), _coloured(predicted)))
    rgb_of = palette().tolist()
    colours = {name: "#{:02x}{:02x}{:02x}".format(*rgb_of[number]) for number, name in enumerate(CLASS_NAMES)}
    draw_columns(columns, colours, picture)


def _coloured(labels: Pixels) -> Pixels:
    """Labels (H, W) -> their colours (H, W, 3)."""
    colours: Pixels = palette()[labels].astype(np.uint8)
    return colours
