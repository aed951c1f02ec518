"""COCO 2017 keypoints: persons with 17 keypoints each, cropped one by one, from the official folders.

Official layout: `annotations/person_keypoints_{train2017,val2017}.json` beside `train2017/*.jpg` and
`val2017/*.jpg`. A record is a person; which are left out, and what rows hold: extract.datasets.persons.
person_data. The classes of the data set are the keypoints. Test rows are of the annotated boxes, or with
`--boxes FILE` of a detector's (extract.datasets.persons.box_file).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from extract.datasets.persons.box_file import BoxFile
from extract.datasets.persons.coco_rule import COCO_KEYPOINTS
from extract.datasets.persons.keypoint_files import KEYPOINT_FILE, entries_of_file, what_is_missing
from extract.datasets.persons.person_data import PersonData
from extract.datasets.persons.person_sample import write_person_split
from extract.sources.layout_choice import choose_root
from extract.sources.listing import IMAGE_ENDINGS, holds_any
from extract.sources.record import DatasetLayoutError
from extract.swin.window_rule import WindowRule
from extract.views.persons.person_recipes import (
    POSE_LEVELS,
    TEST_VIEWS,
    TRAINING_VIEWS,
    VIEW_RECIPES,
)

__all__ = ["DEFAULT_LEVELS", "TEST_VIEWS", "TRAINING_VIEWS", "VIEW_RECIPES"]

DEFAULT_FOLDER = "coco"
OFFICIAL_SPLITS = ("train2017", "val2017")
TRAINING_SPLITS = ("train2017",)
DEFAULT_LEVELS = POSE_LEVELS
DEFAULT_WINDOW_RULE: WindowRule = "cover"
"""As the Swin of "Revealing the Dark Secrets of Masked Image Modeling", whose window is that of the map where
that is smaller: p5 of a crop has 8x8 cells."""
TAKES_BOXES = True
CATEGORY_IDS = (1,)
"""Of persons."""
_NAMES = {1: "person"}


class CocoPose(PersonData):
    """One split; a `Dataset`."""

    licence = "annotations CC BY 4.0; images under their owners' terms, as Flickr states them"


def open_dataset(
    data: str | Path, split: str, subset: str | None = None, boxes: BoxFile | None = None
) -> CocoPose:
    """A split of COCO's keypoints; reads its annotations, and of the images only their lengths.

    Args:
        data: the official folder or its parent.
        split: train2017 or val2017.
        subset: see stores.subsets.
        boxes: those that rows of val2017 are of; None: the annotated ones.

    Raises:
        DatasetLayoutError: `data` does not hold it, or the file has other categories or keypoints.
        ValueError: an unknown subset, or boxes of a training split.
    """
    root, _ = choose_root(data, split, DEFAULT_FOLDER, lambda folder: _is_there(folder, split))
    if root is None:
        raise DatasetLayoutError(what_is_missing(Path(data), split, DEFAULT_FOLDER))
    path = root / "annotations" / KEYPOINT_FILE.format(split=split)
    entries, strangers = entries_of_file(path, [root / split], _NAMES, COCO_KEYPOINTS.names)
    return CocoPose(
        "coco_pose",
        split,
        split in TRAINING_SPLITS,
        COCO_KEYPOINTS,
        CATEGORY_IDS,
        entries,
        subset,
        boxes,
        strangers=strangers,
    )


def write_sample(folder: Path, records: int, generator: np.random.Generator) -> None:
    """Writes a tiny set in the official layout: so many persons of each split, two on an image."""
    for split in OFFICIAL_SPLITS:
        path = folder / "annotations" / KEYPOINT_FILE.format(split=split)
        write_person_split(path, folder / split, split, records, _NAMES, COCO_KEYPOINTS, generator)


def _is_there(root: Path, split: str) -> bool:
    annotations = root / "annotations" / KEYPOINT_FILE.format(split=split)
    return annotations.is_file() and holds_any(root / split, IMAGE_ENDINGS)
