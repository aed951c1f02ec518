"""NYU Depth V2, indoor depth: BTS's lists and folders, or the labelled .mat file of the data set itself.

Lists (`train_list.txt`, `test_list.txt`, or BTS's `nyudepthv2_{train,test}_files_with_gt.txt`) name 24,231
training images of the synchronised raw recordings and 654 test images, 480x640, with 16-bit depth maps in
millimetres, below `sync/` and `official_splits/test/`; without a list these folders are listed. BTS paints a
black frame around its test images (only rows 7 to 474 and columns 7 to 632 are kept): that is how the data is
distributed, and scores are of the Eigen crop inside it. `nyu_depth_v2_labeled.mat` with `splits.mat` has 795
training and the same 654 test images without the frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from extract.datasets.depth_data.depth_lists import find_list, listed_depths, refuse_empty
from extract.datasets.depth_data.depth_maps import DepthMaps, depth_facts
from extract.datasets.depth_data.nyu_mat import MAT, mat_file, mat_pairs
from extract.datasets.depth_data.samples import write_list_sample
from extract.datasets.layouts.label_maps import Pair
from extract.datasets.own.advice import contents
from extract.sources.byte_sources import FileSource
from extract.sources.listing import MissingFile
from extract.sources.record import DatasetLayoutError
from extract.swin.window_rule import WindowRule
from extract.views.depth.recipes import DEFAULT_LEVELS as DEFAULT_LEVELS
from extract.views.depth.recipes import NYU_CROP_PX, NYU_WINDOWS, crops, single, slide_flip
from extract.views.recipes import RecipeMaker

DEFAULT_FOLDER = "nyu_depth_v2"
OFFICIAL_SPLITS = ("train", "test")
TRAINING_SPLITS = ("train",)
VIEW_RECIPES: Mapping[str, RecipeMaker] = {
    "nyudepthv2": partial(crops, "nyudepthv2", None, NYU_CROP_PX),
    "single": partial(single, None),
    "slide-flip": partial(slide_flip, None, NYU_WINDOWS),
}
TRAINING_VIEWS = ("nyudepthv2",)
TEST_VIEWS = ("single", "slide-flip")
DEFAULT_WINDOW_RULE: WindowRule = "cover"
"""As MIM-Depth-Estimation, whose windows of 30 (15 in the last stage) leave stages 3 and 4 unshifted."""
FACTS = depth_facts(units_per_m=1000, max_depth_m=10, crop="eigen")

_LISTS = {
    "train": ("train_list.txt", "nyudepthv2_train_files_with_gt.txt"),
    "test": ("test_list.txt", "nyudepthv2_test_files_with_gt.txt"),
}
_FOLDERS = {"train": ("sync", "official_splits/train"), "test": ("official_splits/test",)}
_GET_IT = (
    "get the synchronised pairs and lists by the scripts of cleinc/bts, or nyu_depth_v2_labeled.mat and "
    "splits.mat from NYU Depth V2's site, and pass their folder as DATA"
)


def open_dataset(data: str | Path, split: str, subset: str | None = None) -> DepthMaps:
    """A split of NYU Depth V2.

    Args:
        data: the folder of the lists, of `sync/` and `official_splits/`, or of the .mat file; or that file.
        split: train or test.
        subset: see stores.subsets.

    Raises DatasetLayoutError, which says what was looked for and found.
    """
    root = Path(data)
    mat = mat_file(root)
    pairs = _listed(root, split) if mat is None else mat_pairs(mat, split)
    found = DepthMaps("nyudepthv2", split, split in TRAINING_SPLITS, pairs, subset, FACTS)
    found.licence = "for research; see the site of NYU Depth V2"
    return found


def _listed(root: Path, split: str) -> Sequence[Pair]:
    if (root / DEFAULT_FOLDER).is_dir():
        root = root / DEFAULT_FOLDER
    listed, roots = find_list(root, _LISTS[split]), [root, *(root / below for below in _FOLDERS[split])]
    pairs = listed_depths(listed, roots, roots) if listed else list(_in_folders(roots[1:]))
    if not pairs:
        raise DatasetLayoutError(
            f"{root} ({split}): looked for {' or '.join(_LISTS[split])}, for "
            f"{' and '.join(_FOLDERS[split])} with rgb_*.jpg and sync_depth_*.png, and for {MAT}; "
            f"{contents(root)}; {_GET_IT}"
        )
    refuse_empty(pairs, f"{root} ({split})", f"the files of {listed.name if listed else 'the split'}")
    return pairs


def _in_folders(folders: Sequence[Path]) -> list[Pair]:
    """The pairs of scenes' folders: rgb_<n>.jpg with sync_depth_<n>.png."""
    found = []
    for folder in folders:
        for image in sorted(folder.glob("*/rgb_*.jpg")):
            depth = image.with_name(image.name.replace("rgb_", "sync_depth_")).with_suffix(".png")
            key = f"{image.parent.name}/{image.stem}"
            is_there = depth.is_file()
            annotation = (
                FileSource(depth, depth.stat().st_size)
                if is_there
                else MissingFile("its depth map is missing")
            )
            found.append(Pair(key, FileSource(image, image.stat().st_size), annotation))
    return found


def write_sample(folder: Path, records: int, generator: np.random.Generator) -> None:
    """Writes a tiny set: lists and so many pairs of each split."""
    for split in OFFICIAL_SPLITS:
        write_list_sample(
            folder, folder / _FOLDERS[split][-1], _LISTS[split][0], split, records, generator, FACTS
        )
