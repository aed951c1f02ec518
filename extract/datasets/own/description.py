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

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.sources.record import DatasetLayoutError
from extract.views.crop_size import CropSize, crop_hw, plain_size

SUFFIXES = (".yaml", ".yml")
"""Of description files."""
MOST_CLASSES = 100_000
MOST_MASK_CLASSES = 255
"""A label map holds a byte a pixel, and 255 is ignored."""
_LIST_FROM = {"masks": 0, "voc-xml": 1}
"""By layout whose `classes` may be a list of names: the number of the first."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEYS = ("name", "layout", "data", "splits", "training", "classes", "crop_size", "short_side")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Which keys a description of one layout has."""

    task: str
    split_keys: tuple[str, ...]
    """Of a split, all paths below the folder of the data."""
    required: tuple[tuple[str, ...], ...]
    """Sets of split keys of which one must be there."""
    options: tuple[str, ...] = ()
    """Further keys of the description."""
    labelled: bool = False
    """Whether `classes` are labels, such as names of folders: a list of them, or `{label: name}`."""
    most_classes: int = MOST_CLASSES


LAYOUTS: Mapping[str, Layout] = {
    "masks": Layout(
        task="segmentation",
        split_keys=("images", "masks", "list", "pairs"),
        required=(("images", "masks"), ("pairs",)),
        options=("ignored", "offset", "image_suffix", "mask_suffix"),
        most_classes=MOST_MASK_CLASSES,
    ),
    "coco-json": Layout(
        task="detection",
        split_keys=("annotations", "images", "stuff"),
        required=(("annotations", "images"),),
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
    "voc-xml": Layout(
        task="detection",
        split_keys=("images", "annotations", "list"),
        required=(("images", "annotations"),),
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
    first_pixel: int = 1
    """Number of the first pixel of a row in VOC's xml files: 1 as in VOC, 0 for tools that count from 0."""
    crop_size: CropSize | None = None
    """Default size of training views, a side or (height, width); no part of `content`, as views record it."""
    short_side: int | None = None
    """Default short side at ratio 1, of training and test views; no part of `content`."""

    @property
    def task(self) -> str:
        return LAYOUTS[self.layout].task

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.classes.values())

    @property
    def class_numbers(self) -> tuple[int, ...]:
        """Value in masks, or category id, by label."""
        return tuple(self.classes)

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
        if not LAYOUTS[self.layout].labelled:
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
        if self.layout == "voc-xml":
            content["first_pixel"] = self.first_pixel
        return content


def is_description(name: str) -> bool:
    """Whether a data set is named by a description file.

    >>> is_description("my.yaml"), is_description("ade20k")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def read_description(path: str | Path, *, ready_made: bool = False) -> Description:
    """The description in a file.

    Args:
        ready_made: whether it is of this package: `data` is then below the folder of all data sets.

    Raises DatasetLayoutError, naming file and key, for one that cannot be read or lacks something.
    """
    import yaml  # late, so that doctor can report that it is missing

    path = Path(path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DatasetLayoutError(
            f"{path} does not exist: a description of own data; `describe FOLDER --out {path}` writes one"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetLayoutError(f"{path} cannot be read as a description: {error}") from None
    return _Reader(str(path)).description(found, None if ready_made else path.parent)


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
        first_pixel=int(content.get("first_pixel", 1)),
    )


class _Reader:
    """Checks what YAML gives, and names the file and the key in errors."""

    def __init__(self, where: str) -> None:
        self._where = where

    def description(self, found: Any, folder: Path | None) -> Description:
        if not isinstance(found, dict):
            raise self._error(
                f"holds {_shown(found)}, expected `name:`, `layout:`, `splits:` and `classes:`, one a line"
            )
        layout_name, data = self._text(found, "layout"), self._text(found, "data", ".")
        if layout_name not in LAYOUTS:
            raise self._error(f"layout: {_shown(layout_name)}, available: {', '.join(LAYOUTS)}")
        layout = LAYOUTS[layout_name]
        self._refuse_unknown(found, (*_KEYS, *layout.options), "")
        name = self._text(found, "name")
        if not _NAME.fullmatch(name):
            raise self._error(f"name: {_shown(name)}, expected letters, digits, - and _ (it names stores)")
        splits = self._splits(found.get("splits"), layout)
        training = self._texts(found.get("training", [next(iter(splits))]), "training")
        unknown = [split for split in training if split not in splits]
        if unknown or not training:
            raise self._error(f"training: {_shown(unknown)}, expected some of {', '.join(splits)}")
        offset = self._whole(found.get("offset", 0), "offset")
        labels, classes = self._classes(found.get("classes"), layout_name, offset)
        ignored = found.get("ignored", [])
        if not isinstance(ignored, list):
            ignored = [ignored]
        values = tuple(sorted({self._whole(value, "ignored") for value in ignored}))
        both = [value for value in values if value in classes]
        if both:
            raise self._error(f"ignored: {both[0]} is the class {classes[both[0]]!r} too; leave out one")
        return Description(
            name=name,
            layout=layout_name,
            data=data if folder is None else os.path.abspath(folder / os.path.expanduser(data)),
            splits=splits,
            training=tuple(training),
            classes=classes,
            labels=labels,
            leave_out=tuple(self._texts(found["leave_out"], "leave_out")) if "leave_out" in found else (),
            ignored=values,
            image_suffix=self._text(found, "image_suffix", ""),
            mask_suffix=self._text(found, "mask_suffix", ""),
            first_pixel=self._first_pixel(found.get("first_pixel", 1)),
            crop_size=self._crop(found.get("crop_size")),
            short_side=None if "short_side" not in found else self._whole(found["short_side"], "short_side"),
        )

    def _first_pixel(self, value: Any) -> int:
        if value not in (0, 1) or isinstance(value, bool):
            raise self._error(f"first_pixel: {_shown(value)}, expected 1, as in VOC, or 0")
        return int(value)

    def _crop(self, value: Any) -> int | tuple[int, int] | None:
        try:
            return None if value is None else plain_size(crop_hw(value))
        except ValueError as error:
            raise self._error(str(error)) from None

    def _splits(self, found: Any, layout: Layout) -> dict[str, dict[str, tuple[str, ...]]]:
        if not isinstance(found, dict) or not found:
            raise self._error(f"splits: {_shown(found)}, expected `train: {{...}}` and others, one a line")
        splits: dict[str, dict[str, tuple[str, ...]]] = {}
        for split, where in found.items():
            place = f"splits.{split}"
            if not isinstance(split, str) or not _NAME.fullmatch(split):
                raise self._error(f"splits: {_shown(split)}, expected a name of letters, digits, - and _")
            if not isinstance(where, dict):
                raise self._error(f"{place}: {_shown(where)}, expected {_ways(layout)}")
            self._refuse_unknown(where, layout.split_keys, f"{place}.")
            paths = {key: self._paths(value, f"{place}.{key}") for key, value in where.items()}
            if not any(set(way) <= set(paths) for way in layout.required):
                raise self._error(f"{place}: has {', '.join(paths) or 'nothing'}, expected {_ways(layout)}")
            splits[split] = {key: paths[key] for key in layout.split_keys if key in paths}
        return splits

    def _paths(self, value: Any, place: str) -> tuple[str, ...]:
        paths = self._texts(value, place)
        for path in paths:
            if os.path.isabs(path) or ".." in Path(path).parts:
                raise self._error(f"{place}: {path!r}, expected a path below the folder `data`")
        return tuple(Path(path).as_posix() for path in paths)

    def _classes(self, found: Any, name: str, offset: int) -> tuple[tuple[str, ...], dict[int, str]]:
        """Labels of a labelled layout, and the classes by number."""
        layout, labels = LAYOUTS[name], None
        if layout.labelled:
            labels, found = self._labels(found)
        elif isinstance(found, list) and name in _LIST_FROM:
            found = dict(enumerate(found, start=_LIST_FROM[name] or offset))
        elif isinstance(found, list):
            raise self._error("classes: a list, expected `category id: name`, one a line, as in the json")
        elif offset:
            raise self._error("offset: is for a list of classes; here the classes have their values")
        if not isinstance(found, dict) or not 0 < len(found) <= layout.most_classes:
            raise self._error(f"classes: {_shown(found)}, expected 1 to {layout.most_classes} names")
        classes: dict[int, str] = {}
        for number, class_name in found.items():
            if not isinstance(class_name, str) or not class_name.strip() or not class_name.isprintable():
                raise self._error(
                    f"classes: {_shown(class_name)}, expected a name on one line; put it in quotes"
                )
            classes[self._whole(number, "classes")] = class_name.strip()
        self._refuse_repeated(classes.values())
        self._refuse_repeated(labels or ())
        return labels or (), dict(sorted(classes.items()))

    def _labels(self, found: Any) -> tuple[tuple[str, ...], Any]:
        """The labels, and the names by number; the latter as found where it is neither list nor mapping."""
        if not isinstance(found, dict | list):
            return (), found
        pairs = found.items() if isinstance(found, dict) else [(each, each) for each in found]
        for label, _ in pairs:
            if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
                raise self._error(f"classes: {_shown(label)}, expected a folder or label; put it in quotes")
        return tuple(str(label) for label, _ in pairs), {
            number: name if isinstance(found, dict) else str(name) for number, (_, name) in enumerate(pairs)
        }

    def _refuse_repeated(self, names: Iterable[str]) -> None:
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise self._error(f"classes: {twice[0]!r} twice; give every class a name of its own")

    def _refuse_unknown(self, found: Mapping[Any, Any], known: tuple[str, ...], before: str) -> None:
        for key in found:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"available: {', '.join(known)}"
                raise self._error(f"{before}{key}: unknown key; {hint}")

    def _text(self, found: Mapping[str, Any], key: str, default: str | None = None) -> str:
        value = found.get(key, default)
        if value is None:
            raise self._error(f"{key}: is missing")
        if not isinstance(value, str):
            raise self._error(f"{key}: {_shown(value)}, expected text; put it in quotes")
        return value

    def _texts(self, value: Any, key: str) -> list[str]:
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) and each for each in values) or not values:
            raise self._error(f"{key}: {_shown(value)}, expected text or a list of texts")
        return values

    def _whole(self, value: Any, key: str) -> int:
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise self._error(f"{key}: {_shown(value)}, expected a whole number from 0")
        return value

    def _error(self, problem: str) -> DatasetLayoutError:
        return DatasetLayoutError(f"{self._where}: {problem}")


def _ways(layout: Layout) -> str:
    return " or ".join("{" + ", ".join(f"{key}: ..." for key in way) + "}" for way in layout.required)


def _shown(value: Any) -> str:
    return repr(value)[:80]
