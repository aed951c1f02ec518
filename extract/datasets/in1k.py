"""ImageNet-1K: photographs of 1000 classes, in the official layout, Kaggle's, or tars.

Official layout: `{train,val}/<WordNet id>/*.JPEG`. The validation split may lie in one folder, with
`LOC_val_solution.csv` (Kaggle) or the devkit's `ILSVRC2012_validation_ground_truth.txt` and `meta.mat` in or
above it. Labels are 0 to 999 in the order of the sorted WordNet ids, as everywhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from extract.datasets.layouts.in1k_files import FOLDER, SPLITS, listed_photographs
from extract.datasets.layouts.labelled_images import LabelledImages, numbered_labels
from extract.datasets.layouts.sample_files import SAMPLE_SIZES_HW, sample_image
from extract.datasets.layouts.synsets import imagenet_synsets, short_names
from extract.swin.window_rule import WindowRule
from extract.views.crop_recipes import (
    DEFAULT_WINDOWS,
    PROBE_LEVELS,
    TEST_VIEWS,
    TEST_VIEWS_OF_TRAINING,
    TRAINING_VIEWS,
    VIEW_RECIPES,
)

__all__ = [
    "DEFAULT_FOLDER",
    "DEFAULT_LEVELS",
    "DEFAULT_WINDOWS",
    "DEFAULT_WINDOW_RULE",
    "TEST_VIEWS",
    "TEST_VIEWS_OF_TRAINING",
    "TRAINING_VIEWS",
    "VIEW_RECIPES",
]

DEFAULT_FOLDER = FOLDER
OFFICIAL_SPLITS = SPLITS
TRAINING_SPLITS = ("train",)
DEFAULT_LEVELS = PROBE_LEVELS
DEFAULT_WINDOW_RULE: WindowRule = "cover"
"""As the official code of Swin, whose window is that of the map where that is smaller."""


def open_dataset(data: str | Path, split: str, subset: str | None = None) -> LabelledImages:
    """A split of ImageNet-1K.

    Args:
        data: the folder that holds `train` and `val`, or its parent; or tars of `key.jpg` and `key.cls` (a
            number from 0): a folder of them (`<split>/*.tar` or `*<split>*.tar`), one tar, or a pattern.
        split: train or val.
        subset: see stores.subsets.

    Raises:
        DatasetLayoutError: `data` holds none of these, a folder is no class, or labels are missing.
        HostileTarError: see extract.sources.tar_index.
    """
    synsets = imagenet_synsets()
    names = short_names(synsets)
    assert names is not None, "timm names all of its synsets"
    return LabelledImages(
        "in1k",
        split,
        split in TRAINING_SPLITS,
        names,
        listed_photographs(data, split, synsets),
        numbered_labels(synsets),
        subset,
    )


def write_sample(folder: Path, records: int, generator: np.random.Generator) -> None:
    """Writes a tiny set in the official layout: so many photographs of each split, of two classes in turn."""
    for split in OFFICIAL_SPLITS:
        for number in range(records):
            synset = imagenet_synsets()[number % 2]
            path = folder / split / synset / f"{synset}_{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            size = SAMPLE_SIZES_HW[number % len(SAMPLE_SIZES_HW)]
            Image.fromarray(sample_image(generator, size)).save(path, "JPEG", quality=95)
