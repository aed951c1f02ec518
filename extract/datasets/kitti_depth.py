"""KITTI depth prediction, Eigen split: images of drives with annotated depth, by the lists that name them.

Lists: `train_list.txt` and `test_list.txt` of MIM-Depth-Estimation's eigen_benchmark (23,158 and 652 images
with annotated depth; the LiDAR list of 697 test images has 45 without), or BTS's
`eigen_{train,test}_files_with_gt.txt`. Depth maps are 16-bit PNGs of 256 values a metre, 0 = not measured.
Images lie below the folder itself, `raw/` or `raw_data/`; depth maps below it, `data_depth_annotated/` and
its `train` and `val`. Views and scores are of the bottom centre of an image, 352x1216 ("kb crop").
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from extract.datasets.depth_data.depth_lists import find_list, listed_depths, refuse_empty
from extract.datasets.depth_data.depth_maps import DepthMaps, depth_facts
from extract.datasets.depth_data.samples import write_list_sample
from extract.datasets.own.advice import contents
from extract.sources.record import DatasetLayoutError
from extract.swin.window_rule import WindowRule
from extract.views.depth.recipes import DEFAULT_LEVELS as DEFAULT_LEVELS
from extract.views.depth.recipes import KITTI_PART_HW, KITTI_WINDOWS, crops, single, slide_flip
from extract.views.recipes import RecipeMaker

DEFAULT_FOLDER = "kitti"
OFFICIAL_SPLITS = ("train", "test")
TRAINING_SPLITS = ("train",)
VIEW_RECIPES: Mapping[str, RecipeMaker] = {
    "kitti_depth": partial(crops, "kitti_depth", KITTI_PART_HW, KITTI_PART_HW[0]),
    "single": partial(single, KITTI_PART_HW),
    "slide-flip": partial(slide_flip, KITTI_PART_HW, KITTI_WINDOWS),
}
TRAINING_VIEWS = ("kitti_depth",)
TEST_VIEWS = ("single", "slide-flip")
DEFAULT_WINDOW_RULE: WindowRule = "cover"
FACTS = depth_facts(units_per_m=256, max_depth_m=80, crop="garg")

_LISTS = {
    split: (f"{split}_list.txt", f"eigen_{split}_files_with_gt.txt", f"eigen_benchmark/{split}_list.txt")
    for split in OFFICIAL_SPLITS
}
_IMAGES = ("", "raw", "raw_data", "input")
_DEPTHS = ("", "data_depth_annotated", "data_depth_annotated/train", "data_depth_annotated/val", "gt_depth")
_GET_IT = (
    "get the raw drives and the annotated depth maps of KITTI, and the lists of MIM-Depth-Estimation "
    "(dataset/filenames/eigen_benchmark) into one folder, and pass it as DATA"
)


def open_dataset(data: str | Path, split: str, subset: str | None = None) -> DepthMaps:
    """A split of KITTI depth.

    Args:
        data: the folder of the lists.
        split: train or test.
        subset: see stores.subsets.

    Raises DatasetLayoutError, which says what was looked for and found.
    """
    root = Path(data)
    listed = find_list(root, _LISTS[split])
    if listed is None:
        raise DatasetLayoutError(
            f"{root} ({split}): looked for the list {' or '.join(_LISTS[split])}; {contents(root)}; {_GET_IT}"
        )
    pairs = listed_depths(listed, [root / below for below in _IMAGES], [root / below for below in _DEPTHS])
    refuse_empty(pairs, f"{root} ({split})", f"the files of {listed.name}")
    found = DepthMaps("kitti_depth", split, split in TRAINING_SPLITS, pairs, subset, FACTS)
    found.licence = "CC BY-NC-SA 3.0"
    return found


def write_sample(folder: Path, records: int, generator: np.random.Generator) -> None:
    """Writes a tiny set: lists and so many pairs of each split."""
    for split in OFFICIAL_SPLITS:
        write_list_sample(folder, folder, _LISTS[split][0], split, records, generator, FACTS)
