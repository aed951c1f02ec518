"""Annotations of the ordinary kind, many at a time: polygons with all that COCO writes beside them.

What is looked at here is what `coco_json.annotations` looks at, one by one, and with equal results; images
with anything out of the ordinary are left to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from extract.datasets.coco_json.annotations import FIELDS, MAX_OUTLINE
from extract.views.instance_targets import rle_bytes_of
from extract.views.instances import outline_steps
from extract.views.view import Hw

Floats = npt.NDArray[np.float64]
_NEAR = 1e-6
"""Sums that are so near to a limit are summed as `coco_json.annotations` does it."""
_CANONICAL = msgspec.json.Encoder(order="sorted")
_INT64 = 1 << 63


def entries_of(texts: Sequence[bytes]) -> list[dict[str, Any]] | None:
    """The annotations of an image in the order of their ids; None where one is out of the ordinary."""
    try:
        entries = [msgspec.json.decode(text) for text in texts]
        entries.sort(key=lambda entry: entry["id"])
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError):
        return None
    return entries if all(type(entry["id"]) is int for entry in entries) else None


def canonical_bytes(
    image_id: int, hw: Hw, listed: tuple[int, int], entries: Sequence[Mapping[str, Any]]
) -> bytes | None:
    """`annotation_bytes` of ordinary annotations; None where msgspec may write a number or a text otherwise
    than Python.

    Both write the shortest digits that make the number. They differ where Python takes an exponent: below
    1e-4 and from 1e16 on.
    """
    kept = [{name: entry[name] for name in FIELDS if name in entry} for entry in entries]
    image = {"height": hw[0], "id": image_id, "listed": list(listed), "width": hw[1]}
    try:
        text = _CANONICAL.encode({"annotations": kept, "image": image})
    except (msgspec.MsgspecError, OverflowError, TypeError):
        return None
    names = chain(("height", "image", "listed"), *kept)
    sizes = sum("size" in s for entry in kept if isinstance(s := entry.get("segmentation"), dict))
    expected = sizes + sum(name.count("e") for name in names)
    is_plain = text.count(b"e") == expected and b"0.0000" not in text and b"\\" not in text
    return text if is_plain and text.isascii() and b"\x7f" not in text else None


@dataclass(slots=True)
class OrdinaryBlock:
    """Polygons of several images, measured together."""

    label_of: Mapping[int, int]
    _images: list[tuple[int, Hw]] = field(default_factory=list)
    """Instances of each image, and its size."""
    _parts: list[int] = field(default_factory=list)
    """Polygons of each instance."""
    _polygons: list[list[float]] = field(default_factory=list)

    def add(self, hw: Hw, entries: Sequence[Mapping[str, Any]]) -> bool:
        """Takes the annotations of an image; False, and none is taken, where one is out of the ordinary."""
        if not all(self._is_ordinary(entry) for entry in entries):
            return False
        self._images.append((len(entries), hw))
        for entry in entries:
            self._parts.append(len(entry["segmentation"]))
            self._polygons += entry["segmentation"]
        return True

    def _is_ordinary(self, entry: Mapping[str, Any]) -> bool:
        category, box, area = entry.get("category_id"), entry.get("bbox"), entry.get("area")
        parts, crowd = entry.get("segmentation"), entry.get("iscrowd")
        return (
            type(category) is int
            and category in self.label_of
            and type(crowd) is int
            and crowd == 0
            and -_INT64 <= entry["id"] < _INT64
            and type(entry.get("image_id")) is int
            and type(area) in (int, float)
            and area >= 0  # type: ignore[operator]
            and type(box) is list
            and len(box) == 4
            and all(type(value) in (int, float) for value in box)
            and box[2] > 0
            and box[3] > 0
            and type(parts) is list
            and bool(parts)
            and all(type(part) is list and len(part) >= 6 and not len(part) % 2 for part in parts)
        )

    def measured(self) -> list[tuple[Floats, list[int]] | None]:
        """Of each image the extents, float64 (instances, 4), and the longest run lengths of each instance;
        None of one that is out of the ordinary after all."""
        if not self._parts:
            return [(np.zeros((0, 4)), []) for _ in self._images]
        try:
            flat = np.array(list(chain.from_iterable(self._polygons)), np.float64)
        except (ValueError, TypeError, OverflowError):
            return [None] * len(self._images)
        points = flat.reshape(-1, 2)
        lengths = np.array([len(part) // 2 for part in self._polygons])
        firsts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        steps = np.empty_like(points)
        steps[1:] = points[1:] - points[:-1]
        steps[firsts] = points[firsts] - points[firsts + lengths - 1]
        np.abs(steps, out=steps)
        instance = np.concatenate([[0], np.cumsum(self._parts)[:-1]])
        first_points = firsts[instance]
        low, high = np.minimum.reduceat(points, first_points), np.maximum.reduceat(points, first_points)
        across = np.add.reduceat(steps[:, 0], first_points)
        runs = across + np.add.reduceat(2.0 * lengths + 2, instance)
        outlines = np.add.reduceat(steps.max(1), first_points)
        hw = np.repeat([size for _, size in self._images], [count for count, _ in self._images], axis=0)
        limits = hw[:, ::-1].astype(np.float64)
        is_fine = (low >= -limits).all(1) & (high <= 2 * limits).all(1)  # false of what is not finite
        is_fine &= outlines < MAX_OUTLINE * hw.sum(1) * (1 - _NEAR)
        is_near = np.abs(runs - np.rint(runs)) < _NEAR * np.maximum(runs, 1)
        longest = np.where(is_fine, np.ceil(runs), 0).astype(np.int64)
        extents = np.concatenate([low, high], axis=1)
        return self._by_image(extents, is_fine, longest, is_near)

    def _by_image(
        self, extents: Floats, is_fine: npt.NDArray[Any], longest: npt.NDArray[Any], is_near: npt.NDArray[Any]
    ) -> list[tuple[Floats, list[int]] | None]:
        found: list[tuple[Floats, list[int]] | None] = []
        first, polygon = 0, 0
        for count, _ in self._images:
            stop = first + count
            if not is_fine[first:stop].all():
                found.append(None)
            else:
                steps = longest[first:stop].tolist()
                place = polygon
                for number, parts in enumerate(self._parts[first:stop]):
                    if is_near[first + number]:
                        steps[number] = self._steps(range(place, place + parts))
                    place += parts
                found.append((extents[first:stop], [rle_bytes_of(each) for each in steps]))
            polygon += sum(self._parts[first:stop])
            first = stop
        return found

    def _steps(self, polygons: range) -> int:
        """As `rle_bytes` sums them."""
        parts = [np.array(self._polygons[number], np.float64).reshape(-1, 2) for number in polygons]
        return math.ceil(sum(float(outline_steps(part)[:, 0].sum()) + 2 * len(part) + 2 for part in parts))
