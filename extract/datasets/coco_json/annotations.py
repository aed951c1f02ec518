"""COCO's annotations of one image as `Instances`; unusable ones are left out, each with its reason.

An instance that cannot be used is left out with its id and reason, and the rest of its image stays: a
category outside the list; a box that is not four finite numbers of positive width and height; no mask in a
file that has masks; polygons with fewer than three points, an odd number of coordinates, or far outside the
image; run lengths that do not fill it. An area or a box that the file lacks is taken from the mask, as
pycocotools' `loadRes` does it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from pycocotools import mask as coco_mask

from extract.datasets.coco_json.ids import shown_id
from extract.sources.byte_sources import BAD_TARGET, SourceError
from extract.views.instances import (
    Floats,
    Instances,
    Polygons,
    Rle,
    Shape,
    mask_area,
    outline_steps,
)
from extract.views.view import Hw
from stores.format.canonical_json import canonical_json

Xywh = tuple[float, float, float, float]
FIELDS = ("id", "category_id", "bbox", "area", "iscrowd", "segmentation")
MAX_OUTLINE = 100
"""Longest outline of one instance, in widths plus heights of its image; of 869 real ones the longest has
3.1. Drawing takes memory for every pixel of an outline, so that one of a hostile file could take all there
is."""


class _Unusable(ValueError):
    """Why one instance is left out."""


def annotation_bytes(
    image_id: int, hw: Hw, listed: tuple[int, int], entries: Sequence[Mapping[str, Any]]
) -> bytes:
    """The canonical JSON of one image's annotations in the order of their ids: what annotation digests are
    of.

    Numbers that JSON cannot hold (NaN, infinities) become null, and halves of characters, which UTF-8 cannot,
    question marks: their instance is unusable.
    """
    kept = [{field: entry[field] for field in FIELDS if field in entry} for entry in _in_order(entries)]
    image = {"id": image_id, "height": hw[0], "width": hw[1], "listed": list(listed)}
    whole = {"image": image, "annotations": kept}
    try:
        return canonical_json(whole)
    except ValueError:
        return canonical_json({**whole, "annotations": [_holdable(entry) for entry in kept]})


def _in_order(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """By id; those without one come last."""
    return sorted(entries, key=lambda entry: entry["id"] if _is_int(entry.get("id")) else math.inf)


def _holdable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_holdable(item) for item in value]
    if isinstance(value, dict):
        return {_holdable(key): _holdable(item) for key, item in value.items()}
    return value


def has_mask(entry: Mapping[str, Any]) -> bool:
    """Whether an annotation says anything of a mask, be it usable or not.

    >>> [has_mask({"segmentation": value}) for value in (None, [], [[]], [[1, 2]], {"counts": [4]})]
    [False, False, False, True, True]
    """
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list):
        return any(part not in (None, []) for part in segmentation)
    return bool(segmentation.get("counts") if isinstance(segmentation, dict) else segmentation)


def parse_annotations(
    annotation: bytes, label_of: Mapping[int, int], *, boxes_only: bool = False
) -> Instances:
    """The instances in `annotation_bytes`.

    Args:
        annotation: of one image.
        label_of: 0-based label by category id.
        boxes_only: of a file without masks: an instance's shape is its box.

    Raises SourceError where the bytes are not an image's annotations.
    """
    try:
        whole = json.loads(annotation)
        image, entries = whole["image"], whole["annotations"]
        image_id, hw = int(image["id"]), (int(image["height"]), int(image["width"]))
        position, count = (int(part) for part in image["listed"])
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(BAD_TARGET, f"annotation: {type(error).__name__}: {str(error)[:160]}") from None
    return instances_of(image_id, hw, (position, count), entries, label_of, boxes_only=boxes_only)


def instances_of(
    image_id: int,
    hw: Hw,
    listed: tuple[int, int],
    entries: Sequence[Mapping[str, Any]],
    label_of: Mapping[int, int],
    *,
    boxes_only: bool = False,
) -> Instances:
    """`parse_annotations` of `annotation_bytes`, without the bytes between."""
    rows, shapes, skipped = [], [], []
    for entry in _in_order(entries):
        try:
            row, shape = _instance(entry, hw, label_of, boxes_only)
        except _Unusable as error:
            skipped.append((str(entry.get("id"))[:40], str(error)))
            continue
        rows.append(row)
        shapes.append(shape)
    ids, labels, crowd, area, xywh = zip(*rows, strict=True) if rows else ((),) * 5
    return Instances(
        original_hw=hw,
        image_id=image_id,
        listed=listed,
        xywh=np.array(xywh, np.float64).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        crowd=np.array(crowd, np.bool_),
        area=np.array(area, np.float64),
        ids=np.array(ids, np.int64),
        shapes=tuple(shapes),
        skipped=tuple(skipped),
    )


Row = tuple[int, int, bool, float, Xywh]
"""id, label, whether a crowd, area and box."""


def _instance(
    entry: Mapping[str, Any], hw: Hw, label_of: Mapping[int, int], boxes_only: bool
) -> tuple[Row, Shape]:
    number, category, crowd, area = (entry.get(field) for field in ("id", "category_id", "iscrowd", "area"))
    if not _is_int(number) or not -(1 << 63) <= number < 1 << 63:
        raise _Unusable(f"its id is {shown_id(number)}, expected a whole number")
    if not _is_int(category) or category not in label_of:
        raise _Unusable(f"category {shown_id(category)} is not one of the {len(label_of)}")
    if crowd not in (None, 0, 1):
        raise _Unusable(f"iscrowd {str(crowd)[:40]}, expected 0 or 1")
    written = entry.get("bbox")
    box = None if written is None and not boxes_only else _box(written)
    shape = _rectangle(box) if boxes_only and box else _shape(entry.get("segmentation"), hw)
    if box is None:
        x1, y1, x2, y2 = shape.extent().tolist()
        box = _box([x1, y1, x2 - x1, y2 - y1])
    if not _is_finite(area) or area < 0:
        area = box[2] * box[3] if boxes_only else mask_area(shape, hw)
    return (number, label_of[category], bool(crowd), float(area), box), shape


def _box(box: Any) -> Xywh:
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
        raise _Unusable("its box is not four numbers")
    if box[2] <= 0 or box[3] <= 0:
        raise _Unusable(f"a box of zero area, {box[2]} x {box[3]} px")
    x, y, width, height = map(float, box)
    return x, y, width, height


def _rectangle(box: Xywh) -> Polygons:
    """The box as a shape: its extent is all that is read of it."""
    x, y, width, height = box
    corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
    return Polygons((np.array(corners, np.float64),))


def _shape(segmentation: Any, hw: Hw) -> Shape:
    if isinstance(segmentation, list):
        return _polygons(segmentation, hw)
    if isinstance(segmentation, dict):
        return _rle(segmentation, hw)
    raise _Unusable("no segmentation")


def _polygons(parts: Sequence[Any], hw: Hw) -> Polygons:
    if not parts:
        raise _Unusable("no segmentation")
    limits = np.array([hw[1], hw[0]], np.float64)
    found, outline = [], 0.0
    for part in parts:
        points = _points(part)
        if (points < -limits).any() or (points > 2 * limits).any():
            raise _Unusable(f"a polygon far outside its image of {hw[1]}x{hw[0]} pixels")
        outline += float(outline_steps(points).max(axis=1).sum())
        found.append(points)
    if outline > MAX_OUTLINE * sum(hw):
        raise _Unusable(f"an outline of {outline:.0f} px in an image of {hw[1]}x{hw[0]} pixels")
    return Polygons(tuple(found))


def _points(part: Any) -> Floats:
    if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
        points = f"{len(part) / 2:g} points" if isinstance(part, list) else "no points"
        raise _Unusable(f"a polygon with {points}, expected 3 or more")
    try:
        points_xy = np.array(part, np.float64).reshape(-1, 2)
    except (ValueError, TypeError, OverflowError):
        raise _Unusable("a polygon with coordinates that are no numbers") from None
    if not np.isfinite(points_xy).all():
        raise _Unusable("a polygon with coordinates that are no numbers")
    return points_xy


def _rle(segmentation: Mapping[str, Any], hw: Hw) -> Rle:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != list(hw):
        raise _Unusable(f"run lengths of size {str(size)[:40]}, its image has {list(hw)}")
    runs = _decoded_counts(counts) if isinstance(counts, str) else counts
    if (
        not isinstance(runs, list)
        or not all(_is_int(run) and run >= 0 for run in runs)
        or sum(runs) != math.prod(hw)
    ):
        raise _Unusable(f"run lengths that do not fill {hw[1]}x{hw[0]} pixels")
    return Rle(coco_mask.frPyObjects({"size": size, "counts": runs}, *hw)["counts"], hw)


def _decoded_counts(text: str) -> list[int] | None:
    """The run lengths in pycocotools' compressed counts, None for invalid text.

    Source: cocoapi common/maskApi.c rleFrString; 5 bits a character, low ones first, from the third run on as
    differences to the run before the last. pycocotools itself writes past its memory where runs exceed the
    image.

    >>> mask = np.asfortranarray(np.eye(5, 4, dtype=np.uint8))
    >>> _decoded_counts(coco_mask.encode(mask)["counts"].decode())
    [0, 1, 5, 1, 5, 1, 5, 1, 1]
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            return None
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        value -= (1 << shift) if code & 0x10 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return None if shift else runs


def _is_int(value: Any) -> TypeGuard[int]:
    return type(value) is int


def _is_finite(value: Any) -> TypeGuard[float]:
    # Compared, not converted: JSON's whole numbers may be beyond every float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
