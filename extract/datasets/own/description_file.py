"""Reads a description file: YAML whose keys are checked, so that an error names the file and the key."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from extract.datasets.depth_data.depth_maps import depth_facts
from extract.datasets.own.description import LAYOUTS, Description, Layout
from extract.datasets.own.keypoint_lists import read_keypoints
from extract.sources.record import DatasetLayoutError
from extract.views.crop_size import crop_hw, plain_size
from stores.keypoints import KeypointRule
from stores.small_files import read_parsed

_LIST_FROM = {"masks": 0, "voc-xml": 1}
"""By layout whose `classes` may be a list of names: the number of the first."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_POSE_KEYS = ("skeleton", "flip_pairs", "sigmas", "upper_body")
_KEYS = ("name", "layout", "data", "splits", "training", "classes", "crop_size", "short_side")


def read_description(path: str | Path, *, ready_made: bool = False) -> Description:
    """The description in a file.

    Args:
        ready_made: whether it is of this package: `data` is then below the folder of all data sets.

    Raises DatasetLayoutError, naming file and key, for one that cannot be read or lacks something.
    """
    import yaml  # late, so that doctor can report that it is missing

    path = Path(path)
    try:
        found = read_parsed(path, yaml.safe_load)
    except FileNotFoundError:
        raise DatasetLayoutError(
            f"{path} does not exist: a description of own data; `describe FOLDER --out {path}` writes one"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DatasetLayoutError(f"{path} cannot be read as a description: {error}") from None
    return _Reader(str(path)).description(found, None if ready_made else path.parent)


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
        for split in training:
            if not any(set(way) <= set(splits[split]) for way in layout.required):
                raise self._error(
                    f"splits.{split}: has {', '.join(splits[split])}; a split to train on needs "
                    f"{_ways(layout)}"
                )
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
            file=self._text(found, "file", ""),
            label=self._text(found, "label", ""),
            names=self._text(found, "names", ""),
            depth_suffix=self._text(found, "depth_suffix", ""),
            **self._depth(found, layout),
            keypoints=self._keypoints(found),
            first_pixel=self._first_pixel(found.get("first_pixel", 1)),
            crop_size=self._crop(found.get("crop_size")),
            short_side=None if "short_side" not in found else self._whole(found["short_side"], "short_side"),
        )

    def _depth(self, found: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
        """Scale, invalid value and largest depth of a layout that has them."""
        if "scale" not in layout.options:
            return {}
        values: dict[str, Any] = {"invalid": self._whole(found.get("invalid", 0), "invalid")}
        for key, default in (("scale", 1000.0), ("max_depth", 10.0)):
            value = found.get(key, default)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise self._error(f"{key}: {_shown(value)}, expected a number above 0")
            values[key] = float(value)
        try:
            depth_facts(units_per_m=values["scale"], max_depth_m=values["max_depth"])
        except ValueError as error:
            raise self._error(str(error)) from None
        return values

    def _keypoints(self, found: Mapping[str, Any]) -> KeypointRule | None:
        if "keypoints" not in found:
            if others := [key for key in _POSE_KEYS if key in found]:
                raise self._error(f"{others[0]}: is for data with `keypoints:`, a list of their names")
            return None
        try:
            return read_keypoints(found)
        except ValueError as error:
            raise self._error(str(error)) from None

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
            ways = (*layout.required, *([layout.without_truth] if layout.without_truth else []))
            if not any(set(way) <= set(paths) for way in ways):
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
        if not layout.has_classes:
            if found is not None:
                raise self._error(f"classes: layout {name} has none; leave them out")
            return (), {}
        if found is None and layout.names_its_classes:
            return (), {}
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
