"""COCO 2017, detection and instance segmentation of 80 classes, from its official folders or from tars.

Official layout: `annotations/instances_{train2017,val2017}.json` beside `train2017/*.jpg` and
`val2017/*.jpg`. Tars of `key.jpg` and `key.json`: see `extract.datasets.layouts.coco_files`. Category ids
become labels 0..79 in the order of the ids.

Records are the images, by the stem of their file name. The test split keeps all of them. The training split
leaves out what mmdet leaves out (filter_empty_gt and min_size 32 of mmdetection@19bceba
configs/common/lsj-100e_coco-instance.py): images without an annotation, and those with a side below 32 px. A
row may still show no object, where the crop lies beside all of them, or all are crowds. Annotations that
cannot be used are left out, counted and reported (`extract.datasets.coco_json.annotations`); an image
with annotations of which none can be used is a skipped record, as is a missing image.

A file whose annotations have boxes and no masks at all makes a data set of boxes only: rows hold no `mask_*`
and no `original_rle*`, and boxes are the file's own, scaled and cropped (`extract.views.box_targets`).

The annotations of `test-dev2017` and `test2017` are not published: `annotations/image_info_<split>.json`
lists their images, which lie in `test2017/`. Their rows hold `image_id` alone.

Targets of every row, in view pixels, x1 y1 x2 y2; K and J differ by row and can be 0:
    boxes float32 (K, 4)       tight around what the view shows of each mask, hence integers; never empty
    labels int64 (K,)          0..79
    mask_bits uint8 (bytes,)   each mask cropped to its box, as np.packbits of its rows; each starts at a byte
    mask_hw int32 (K, 2)       height and width of each crop: the box's
    mask_yx int32 (K, 2)       its upper left corner: the box's y1 x1
    crowd_boxes float32 (J, 4) around what the view shows of each crowd region, which `boxes` does not hold
    listed int64 (2,)          the image's position in its annotation file, from 0, and how many that lists
Boxes below 1 px in the file, or of no area, are not trained on (mmdet, too), but are truth to evaluate on.
Test rows also hold the annotation as it stands, all K' instances with the crowds, in original pixels:
enough to evaluate by pycocotools with equal numbers, with `CATEGORY_IDS[label]` as category_id:
    image_id int64 ()                   original_xywh float64 (K', 4)   bbox: x y width height
    original_labels int64 (K',)         original_crowd uint8 (K',)      iscrowd
    original_area float64 (K',)         original_ids int64 (K',)        annotation ids
    original_rle uint8 (bytes,)         compressed counts of all masks, one after the other
    original_rle_lengths int32 (K',)    bytes of each
`extract.views.instances.unpacked` is the inverse of the mask coding. `listed` makes the usual folds of 1, 5
and 10 % known from the store alone: a subset can be coco-1pct-fold1 (`stores.subsets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from extract.datasets.layouts.coco_files import (
    SPLITS_WITHOUT_TRUTH,
    CocoFile,
    from_folder,
    from_tars,
    is_official,
    what_is_missing,
)
from extract.datasets.layouts.coco_sample import write_coco_split
from extract.datasets.layouts.instance_data import InstanceData
from extract.datasets.layouts.stuff_maps import STUFF_KINDS, StuffMaps, open_stuff
from extract.sources.layout_choice import choose_root
from extract.sources.record import DatasetLayoutError
from extract.swin.window_rule import WindowRule
from extract.views.detection_recipes import large_scale_jitter, ms_flip, single
from extract.views.recipes import RecipeMaker
from stores.subsets import fold_file, subset_keys

DEFAULT_FOLDER = "coco"
OFFICIAL_SPLITS = ("train2017", "val2017", "test-dev2017", "test2017")
TRAINING_SPLITS = ("train2017",)
STUFF_MAPS = STUFF_KINDS
"""Kinds of stuff maps that `--stuff` adds to training rows."""

_CATEGORIES = (
    "1 person; 2 bicycle; 3 car; 4 motorcycle; 5 airplane; 6 bus; 7 train; 8 truck; 9 boat; 10 traffic "
    "light; 11 fire hydrant; 13 stop sign; 14 parking meter; 15 bench; 16 bird; 17 cat; 18 dog; 19 "
    "horse; 20 sheep; 21 cow; 22 elephant; 23 bear; 24 zebra; 25 giraffe; 27 backpack; 28 umbrella; 31 "
    "handbag; 32 tie; 33 suitcase; 34 frisbee; 35 skis; 36 snowboard; 37 sports ball; 38 kite; 39 "
    "baseball bat; 40 baseball glove; 41 skateboard; 42 surfboard; 43 tennis racket; 44 bottle; 46 wine "
    "glass; 47 cup; 48 fork; 49 knife; 50 spoon; 51 bowl; 52 banana; 53 apple; 54 sandwich; 55 orange; "
    "56 broccoli; 57 carrot; 58 hot dog; 59 pizza; 60 donut; 61 cake; 62 chair; 63 couch; 64 potted "
    "plant; 65 bed; 67 dining table; 70 toilet; 72 tv; 73 laptop; 74 mouse; 75 remote; 76 keyboard; 77 "
    "cell phone; 78 microwave; 79 oven; 80 toaster; 81 sink; 82 refrigerator; 84 book; 85 clock; 86 "
    "vase; 87 scissors; 88 teddy bear; 89 hair drier; 90 toothbrush"
)
CATEGORIES = {int(item.split(" ", 1)[0]): item.split(" ", 1)[1] for item in _CATEGORIES.split("; ")}
"""Names by category id, as the official files list them."""
CATEGORY_IDS = tuple(CATEGORIES)
"""By label."""
CLASS_NAMES = tuple(CATEGORIES.values())
"""By label."""
LABELS = {category: label for label, category in enumerate(CATEGORY_IDS)}
"""By category id."""

VIEW_RECIPES: Mapping[str, RecipeMaker] = {
    "coco": large_scale_jitter,
    "single": single,
    "ms-flip": ms_flip,
}
TRAINING_VIEWS = ("coco",)
TEST_VIEWS = ("single", "ms-flip")
DEFAULT_WINDOW_RULE: WindowRule = "partition"
"""As the Swin of mmdetection."""


class Coco(InstanceData):
    """One split; a `Dataset`."""

    licence = "annotations CC BY 4.0; images under their owners' terms, as Flickr states them"

    def __init__(
        self, split: str, listed_file: CocoFile, subset: str | None, stuff: StuffMaps | None = None
    ) -> None:
        super().__init__(
            *("coco", split, split in TRAINING_SPLITS, CATEGORIES, listed_file, subset, stuff),
            has_truth=split not in SPLITS_WITHOUT_TRUTH,
        )


def open_dataset(data: str | Path, split: str, subset: str | None = None, stuff: str | None = None) -> Coco:
    """A split of COCO 2017; reads its annotations, and of the images only their lengths.

    Args:
        data: the official folder or its parent; or tars as in `extract.datasets.ade20k`.
        split: train2017 or val2017; a tar or pattern given by itself is taken to be that split.
        subset: see stores.subsets.
        stuff: the kind of stuff maps that rows hold beside instances, of
            `extract.datasets.layouts.stuff_maps.STUFF_KINDS`; None: none.

    Raises:
        DatasetLayoutError: `data` holds neither, or a file in another layout.
        HostileTarError: see extract.sources.tar_index.
        ValueError: an unknown subset, or a fold whose usual file is there and names other images.
    """
    root, tars = choose_root(data, split, DEFAULT_FOLDER, lambda folder: is_official(folder, split))
    if root is None and not tars:
        raise DatasetLayoutError(what_is_missing(Path(data), split, DEFAULT_FOLDER))
    listed_file = from_tars(tars) if root is None else from_folder(root, split, CATEGORIES)
    if stuff is not None and root is None:
        raise DatasetLayoutError(
            f"--stuff {stuff}: stuff maps are read from the official folders, not from tars"
        )
    maps = None if stuff is None or root is None else open_stuff(root, split, stuff)
    dataset = Coco(split, listed_file, subset, maps)
    if subset and (name := fold_file(subset)):
        for root in (Path(data), Path(data) / DEFAULT_FOLDER):
            _check_fold(dataset, subset, root / "annotations" / "semi_supervised" / name)
    return dataset


def write_sample(folder: Path, records: int, generator: np.random.Generator) -> None:
    """Writes a tiny set in the official layout: so many images of each split, two things on each."""
    for split in OFFICIAL_SPLITS:
        write_coco_split(folder, split, records, CATEGORIES, generator)


def _check_fold(dataset: Coco, subset: str, path: Path) -> None:
    """Raises ValueError where the fold's usual file is there and names other images."""
    if (
        path.is_file()
        and subset_keys((record.key for record in dataset.records), str(path)) != dataset.subset
    ):
        raise ValueError(
            f"{path} names other images than the published steps draw for {subset} (stores.subsets): pass "
            "the file's path as the subset, or move it away"
        )
