"""A description of own data: which layout, which splits, which classes. A YAML file in place of a data set's
name.

    name: streets                # of stores and tables
    layout: masks                # or another of LAYOUTS
    data: ../streets             # from this file's folder; --data overrides it
    splits:
      train: {images: images/train, masks: masks/train}
      test: {images: images/test, masks: masks/test}
    training: [train]            # the first one by default; the others are test splits
    classes: [sky, road, car]    # or {value: name}
    ignored: [255]

Keys of each layout are in `LAYOUTS`, in words in docs/own-data.md. All but `data` enters the identity of
stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from extract.views.crop_size import CropSize
from stores.keypoints import KeypointRule, rule_from_json

_TEXTS = ("file", "label", "names")
"""Options of lists, in `content` where they are named."""
SUFFIXES = (".yaml", ".yml")
"""Of description files."""
MOST_CLASSES = 100_000
MOST_MASK_CLASSES = 255
"""A label map holds a byte a pixel, and 255 is ignored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Which keys a description of one layout has."""

    task: str
    split_keys: tuple[str, ...]
    """Of a split, all paths below the folder of the data."""
    required: tuple[tuple[str, ...], ...]
    """Sets of split keys of which one must be there."""
    without_truth: tuple[str, ...] = ()
    """Split keys that are enough for a test split whose truth is not published."""
    options: tuple[str, ...] = ()
    """Further keys of the description."""
    labelled: bool = False
    """Whether `classes` are labels, such as names of folders: a list of them, or `{label: name}`."""
    names_its_classes: bool = False
    """Whether `classes` may be left out: they are then those of folders or lists."""
    has_classes: bool = True
    """False where truth is numbers, such as depth."""
    most_classes: int = MOST_CLASSES


LAYOUTS: Mapping[str, Layout] = {
    "masks": Layout(
        task="segmentation",
        split_keys=("images", "masks", "list", "pairs"),
        required=(("images", "masks"), ("pairs",)),
        without_truth=("images",),
        options=("ignored", "offset", "image_suffix", "mask_suffix"),
        most_classes=MOST_MASK_CLASSES,
    ),
    "depth": Layout(
        task="depth",
        split_keys=("images", "depths", "list", "pairs"),
        required=(("images", "depths"), ("pairs",)),
        without_truth=("images",),
        options=("scale", "invalid", "max_depth", "image_suffix", "depth_suffix"),
        has_classes=False,
    ),
    "coco-json": Layout(
        task="detection",
        split_keys=("annotations", "images", "stuff"),
        required=(("annotations", "images"),),
        without_truth=("images",),
        options=("keypoints", "skeleton", "flip_pairs", "sigmas", "upper_body"),
    ),
    "imagefolder": Layout(
        task="classification",
        split_keys=("images", "list"),
        required=(("images",), ("list",)),
        options=("leave_out",),
        labelled=True,
    ),
    "inat-json": Layout(
        task="classification",
        split_keys=("annotations", "images"),
        required=(("annotations", "images"),),
    ),
    "image-tars": Layout(
        task="classification",
        split_keys=("tars",),
        required=(("tars",),),
        labelled=True,
    ),
    "videofolder": Layout(
        task="video",
        split_keys=("videos",),
        required=(("videos",),),
        options=("leave_out",),
        labelled=True,
        names_its_classes=True,
    ),
    "videolist": Layout(
        task="video",
        split_keys=("list", "videos"),
        required=(("list",),),
        options=("file", "label", "names"),
        labelled=True,
        names_its_classes=True,
    ),
    "voc-xml": Layout(
        task="detection",
        split_keys=("images", "annotations", "list"),
        required=(("images", "annotations"),),
        without_truth=("images",),
        options=("first_pixel",),
    ),
}
"""By name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What a description file says."""

    name: str
    layout: str
    data: str
    """Folder of the data; no part of `content`."""
    splits: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Paths below `data`, by split and key."""
    training: tuple[str, ...]
    """Splits to train on."""
    classes: Mapping[int, str]
    """By label: the value in masks, the category id, or of a labelled layout the number from 0, with the
    class's name."""
    labels: tuple[str, ...] = ()
    """Of a labelled layout, by class: its folder, or its label in lists and tars."""
    leave_out: tuple[str, ...] = ()
    """Folders that are no class."""
    ignored: tuple[int, ...] = ()
    """Values of masks that are no class."""
    image_suffix: str = ""
    """End of the stems of images, which masks do not have."""
    mask_suffix: str = ""
    """End of the stems of masks, which images do not have."""
    depth_suffix: str = ""
    """End of the stems of depth maps, which images do not have."""
    scale: float = 1000.0
    """Values of one metre in depth maps: 1000 for millimetres, 256 as in KITTI."""
    invalid: int = 0
    """Value of depth maps where nothing was measured; 0 is none either."""
    max_depth: float = 10.0
    """The largest depth in metres that heads give and that scores count."""
    first_pixel: int = 1
    """Number of the first pixel of a row in VOC's xml files: 1 as in VOC, 0 for tools that count from 0."""
    file: str = ""
    """Of a list of videos: the path or name of a video from the columns, such as "{id}"."""
    label: str = ""
    """Of a list of videos: the column of labels."""
    names: str = ""
    """Of a list of videos: a file with the names of classes in their order."""
    keypoints: KeypointRule | None = None
    """Of persons or other things in a COCO-format file, whose poses are then estimated; None: none."""
    crop_size: CropSize | None = None
    """Default size of training views, a side or (height, width); no part of `content`, as views record it."""
    short_side: int | None = None
    """Default short side at ratio 1, of training and test views; no part of `content`."""

    @property
    def task(self) -> str:
        return LAYOUTS[self.layout].task if self.keypoints is None else "pose"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of poses the names of the keypoints."""
        return tuple(self.classes.values()) if self.keypoints is None else self.keypoints.names

    @property
    def class_numbers(self) -> tuple[int, ...]:
        """Value in masks, or category id, by label."""
        return tuple(self.classes)

    def has_truth(self, split: str) -> bool:
        """Whether a split names its annotations; a test split need not."""
        return any(set(way) <= set(self.splits[split]) for way in LAYOUTS[self.layout].required)

    def content(self) -> dict[str, Any]:
        """All but name and folder of the data, as JSON: how it is read, for a store's identity."""
        content: dict[str, Any] = {
            "layout": self.layout,
            "splits": {
                split: {key: list(paths) for key, paths in where.items()}
                for split, where in self.splits.items()
            },
            "order": list(self.splits),
            "training": list(self.training),
        }
        if not LAYOUTS[self.layout].has_classes:
            content |= {"image_suffix": self.image_suffix, "depth_suffix": self.depth_suffix}
            content |= {"scale": self.scale, "invalid": self.invalid, "max_depth": self.max_depth}
        elif not LAYOUTS[self.layout].labelled:
            content["classes"] = [[number, name] for number, name in self.classes.items()]
        elif self.labels != self.class_names:  # the identity holds the names already, up to 100,000 of them
            content["labels"] = list(self.labels)
        if self.leave_out:
            content["leave_out"] = list(self.leave_out)
        if self.layout == "masks":
            content |= {
                "ignored": list(self.ignored),
                "image_suffix": self.image_suffix,
                "mask_suffix": self.mask_suffix,
            }
        content |= {name: value for name in _TEXTS if (value := getattr(self, name))}
        if self.layout == "voc-xml":
            content["first_pixel"] = self.first_pixel
        if self.keypoints is not None:
            content["keypoints"] = {"names": list(self.keypoints.names), **self.keypoints.to_json()}
        return content


def is_description(name: str) -> bool:
    """Whether a data set is named by a description file.

    >>> is_description("my.yaml"), is_description("ade20k")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def description_of(dataset: Mapping[str, Any]) -> Description | None:
    """The description in the `dataset` of a store's identity; None where it is no own data.

    Its folder of data is the name, for `data/<name>` by default.
    """
    content = dataset.get("description")
    if content is None:
        return None
    name, order = str(dataset["name"]), content["order"]
    names = [str(each) for each in dataset["class_names"]] if LAYOUTS[content["layout"]].labelled else []
    return Description(
        name=name,
        layout=str(content["layout"]),
        data=name,
        splits={
            split: {key: tuple(paths) for key, paths in content["splits"][split].items()} for split in order
        },
        training=tuple(content["training"]),
        classes={
            int(number): str(class_name) for number, class_name in content.get("classes") or enumerate(names)
        },
        labels=tuple(map(str, content.get("labels", names))),
        leave_out=tuple(map(str, content.get("leave_out", ()))),
        ignored=tuple(content.get("ignored", ())),
        image_suffix=str(content.get("image_suffix", "")),
        mask_suffix=str(content.get("mask_suffix", "")),
        depth_suffix=str(content.get("depth_suffix", "")),
        scale=float(content.get("scale", 1000.0)),
        invalid=int(content.get("invalid", 0)),
        max_depth=float(content.get("max_depth", 10.0)),
        first_pixel=int(content.get("first_pixel", 1)),
        file=str(content.get("file", "")),
        label=str(content.get("label", "")),
        names=str(content.get("names", "")),
        keypoints=None
        if "keypoints" not in content
        else rule_from_json(content["keypoints"]["names"], content["keypoints"]),
    )
