"""Own data by a description: what a module of extract.datasets offers, made from the description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from extract.datasets.depth_data.depth_maps import DepthMaps
from extract.datasets.layouts.instance_data import InstanceData
from extract.datasets.layouts.label_maps import LabelMaps
from extract.datasets.layouts.labelled_images import LabelledImages
from extract.datasets.layouts.labelled_videos import LabelledVideos
from extract.datasets.own.coco_json import open_instances, open_persons
from extract.datasets.own.depth_pairs import open_depths
from extract.datasets.own.description import Description
from extract.datasets.own.labelled_clips import open_video_folders, open_video_lists
from extract.datasets.own.labelled_photographs import open_folders, open_json, open_tars
from extract.datasets.own.mask_pairs import open_masks
from extract.datasets.own.samples import write_sample
from extract.datasets.own.voc_xml import open_voc
from extract.datasets.persons.box_file import BoxFile
from extract.datasets.persons.person_data import PersonData
from extract.swin.window_rule import WindowRule
from extract.views import clip_recipes, crop_recipes, detection_recipes, segmentation_recipes
from extract.views.crop_size import plain_size
from extract.views.depth import recipes as depth_recipes
from extract.views.persons import person_recipes
from extract.views.recipes import RecipeMaker, ViewRecipe
from extract.views.view import Hw

OwnDataset = DepthMaps | LabelMaps | InstanceData | LabelledImages | LabelledVideos | PersonData
Recipes = Mapping[str, RecipeMaker]

_SEGMENTATION: Recipes = {
    "crops": partial(segmentation_recipes.random_crops, "crops"),
    "m2f-crops": partial(segmentation_recipes.mask2former_crops, "m2f-crops"),
    "single": segmentation_recipes.single,
    "ms-flip": segmentation_recipes.ms_flip,
    "slide": segmentation_recipes.slide,
}
_DETECTION: Recipes = {
    "jitter": partial(detection_recipes.large_scale_jitter, name="jitter"),
    "single": detection_recipes.single,
    "ms-flip": detection_recipes.ms_flip,
}
_VIEWS: Mapping[str, tuple[Recipes, tuple[str, ...], tuple[str, ...]]] = {
    "segmentation": (_SEGMENTATION, ("crops", "m2f-crops"), ("single", "ms-flip", "slide")),
    "detection": (_DETECTION, ("jitter",), ("single", "ms-flip")),
    "depth": (
        {
            "depth-crops": partial(depth_recipes.crops, "depth-crops", None, depth_recipes.NYU_CROP_PX),
            "single": partial(depth_recipes.single, None),
            "slide-flip": partial(depth_recipes.slide_flip, None, None),
        },
        ("depth-crops",),
        ("single", "slide-flip"),
    ),
    "video": (
        {"clips": partial(clip_recipes.random_clips, "clips"), **clip_recipes.TEST_RECIPES},
        ("clips",),
        clip_recipes.TEST_VIEWS,
    ),
    "classification": (crop_recipes.VIEW_RECIPES, crop_recipes.TRAINING_VIEWS, crop_recipes.TEST_VIEWS),
    "pose": (person_recipes.VIEW_RECIPES, person_recipes.TRAINING_VIEWS, person_recipes.TEST_VIEWS),
}
"""By task: recipes, and the names of those for training and test splits."""


_OPEN: Mapping[str, Callable[[Description, Path, str, str | None], OwnDataset]] = {
    "masks": open_masks,
    "coco-json": open_instances,
    "depth": open_depths,
    "imagefolder": open_folders,
    "inat-json": open_json,
    "image-tars": open_tars,
    "voc-xml": open_voc,
    "videofolder": open_video_folders,
    "videolist": open_video_lists,
}
"""By layout."""


class OwnData:
    """A `DatasetModule` of own data."""

    def __init__(self, description: Description) -> None:
        self.description = description
        self.OFFICIAL_SPLITS = tuple(description.splits)
        self.TRAINING_SPLITS = description.training
        self.DEFAULT_FOLDER = description.data
        self.TAKES_BOXES = description.task == "pose"
        recipes, self.TRAINING_VIEWS, self.TEST_VIEWS = _VIEWS[description.task]
        self.VIEW_RECIPES = {
            name: partial(_of_size, maker, *_default_size(description, name in self._cropped()))
            for name, maker in recipes.items()
        }
        is_labelled = description.task == "classification"
        of_whole_frames = description.task in ("classification", "video", "depth", "pose")
        self.CATEGORY_IDS = description.class_numbers
        self.DEFAULT_WINDOW_RULE: WindowRule = "cover" if of_whole_frames else "partition"
        self.DEFAULT_LEVELS = {
            "classification": crop_recipes.PROBE_LEVELS,
            "video": clip_recipes.DEFAULT_LEVELS,
            "depth": depth_recipes.DEFAULT_LEVELS,
            "pose": person_recipes.POSE_LEVELS,
        }.get(description.task)
        self.DEFAULT_WINDOWS = {
            "classification": crop_recipes.DEFAULT_WINDOWS,
            "video": clip_recipes.DEFAULT_WINDOWS,
        }.get(description.task, {})
        self.TEST_VIEWS_OF_TRAINING = crop_recipes.TEST_VIEWS_OF_TRAINING if is_labelled else {}

    def _cropped(self) -> tuple[str, ...]:
        """Views that show crops of the description's size: those to train on, windows that slide, persons."""
        return (*self.TRAINING_VIEWS, "slide", *(self.TEST_VIEWS if self.TAKES_BOXES else ()))

    def open_dataset(
        self, data: str | Path, split: str, subset: str | None = None, boxes: BoxFile | None = None
    ) -> OwnDataset:
        """One split. Raises DatasetLayoutError, which says what was looked for and found."""
        root, description = self._root(Path(data), split), self.description
        opened: OwnDataset = (
            _OPEN[description.layout](description, root, split, subset)
            if description.keypoints is None
            else open_persons(description, root, split, subset, boxes)
        )
        opened.description = self.description.content()
        return opened

    def write_sample(self, folder: Path, records: int, generator: np.random.Generator) -> None:
        """Writes a tiny set in the description's layout: so many records of each split."""
        write_sample(self.description, folder, records, generator)

    def _root(self, data: Path, split: str) -> Path:
        """`data`, or the folder below it that a ready-made description names, such as VOCdevkit/VOC2012."""
        if Path(self.description.data).is_absolute():
            return data
        parts = Path(self.description.data).parts
        below = [data, *(data.joinpath(*parts[start:]) for start in range(len(parts)))]
        first = next(iter(self.description.splits[split].values()))[0]
        return next((folder for folder in below if (folder / first).exists()), data)


def _default_size(description: Description, is_training: bool) -> tuple[int | Hw | None, int | None]:
    """Crop and short side that a description names: of detection a short side is of test views alone."""
    crop = description.crop_size if is_training else None
    by_crop = is_training and description.task in ("detection", "pose")
    short = None if by_crop else description.short_side
    return None if crop is None else plain_size(crop), short


def _of_size(
    maker: RecipeMaker,
    default_crop: int | Hw | None,
    default_short: int | None,
    crop: int | Hw | None,
    short: int | None,
) -> ViewRecipe:
    """A recipe of the size asked for, else of the description's; a crop alone has its own short side."""
    if crop is None:
        crop, short = default_crop, default_short if short is None else short
    return maker(crop, short)
