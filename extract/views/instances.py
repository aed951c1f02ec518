"""Instances of one image: boxes, classes and masks, and what a view leaves of them.

Coordinates are COCO's: pixel (i, j) covers [j, j + 1) x [i, i + 1), boxes are x1 y1 x2 y2 unless a name
says xywh. A view of a mask is made in this order, as mmdet does it (resize, crop, recompute the box, drop
what vanished, flip): polygons are scaled exactly and drawn by pycocotools at the size of the resized image;
a bitmap (RLE) is resized like a label map (`extract.views.view.label_crop`); then it is cropped, and flipped
within the crop. Deviation from mmdet, which draws polygons at the original size and resizes the bitmap: an
outline stays sharp when it is enlarged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from extract.views.view import Hw, View, label_crop

Bitmap = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Window = tuple[int, int, int, int]
"""y1, x1, y2, x2 in pixels of the resized image."""

INSTANCES_REVISION = 1
"""Part of the identity of stores with instances; raised whenever the code here gives other numbers."""
DRAWN_MARGIN_PX = 1
"""pycocotools rounds outlines to a fifth of a pixel: no drawn pixel is further outside its polygon."""


def mask_rule() -> dict[str, object]:
    """How masks and boxes are replayed, for identities."""
    return {
        "polygons": "scaled, drawn by pycocotools at the resized size, cropped, flipped",
        "rle": "resized as labels, cropped, flipped",
        "boxes": "recomputed from the cropped masks; instances without a pixel are dropped",
        "revision": INSTANCES_REVISION,
    }


class Shape(Protocol):
    """The mask of one instance in the pixels of its image."""

    def extent(self) -> Floats:
        """float64 (4,), x1 y1 x2 y2 around every pixel of the mask."""

    def window(self, original_hw: Hw, resized_hw: Hw, window: Window) -> Bitmap:
        """The part of the resized mask in a window within `extent` (scaled, and a margin): uint8 (h, w), 0
        or 1."""

    def rle(self, original_hw: Hw) -> bytes:
        """pycocotools' compressed counts of the mask at the original size."""


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """A mask as polygons, which may overlap; outside the image they are cut off."""

    parts: tuple[Floats, ...]
    """Each float64 (points, 2), x y, at least 3 points."""

    def extent(self) -> Floats:
        points = self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)
        return np.concatenate([points.min(axis=0), points.max(axis=0)])

    def window(self, original_hw: Hw, resized_hw: Hw, window: Window) -> Bitmap:
        scale_xy = np.array(
            [resized_hw[1] / original_hw[1], resized_hw[0] / original_hw[0]], dtype=np.float64
        )
        y1, x1, y2, x2 = window
        low_x, low_y = (int(low) for low in np.minimum(np.floor(self.extent()[:2] * scale_xy), (x1, y1)))
        # pycocotools rounds negative coordinates the other way, so drawing starts where the polygons do
        drawn = _drawn([part * scale_xy - (low_x, low_y) for part in self.parts], (y2 - low_y, x2 - low_x))
        bitmap: Bitmap = coco_mask.decode(drawn)
        return bitmap[y1 - low_y :, x1 - low_x :]

    def rle(self, original_hw: Hw) -> bytes:
        counts: bytes = _drawn(self.parts, original_hw)["counts"]
        return counts


def outline_steps(points_xy: Floats) -> Floats:
    """How far each side of a polygon goes along x and y: float64 (points, 2)."""
    steps = np.empty_like(points_xy)
    steps[1:] = points_xy[1:] - points_xy[:-1]
    steps[0] = points_xy[0] - points_xy[-1]
    return np.abs(steps)


def _drawn(parts: Sequence[Floats], size_hw: Hw) -> dict[str, Any]:
    drawn = coco_mask.frPyObjects([part.reshape(-1).tolist() for part in parts], *size_hw)
    merged: dict[str, Any] = coco_mask.merge(drawn)
    return merged


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask as run lengths at the size of its image."""

    counts: bytes
    """pycocotools' compressed counts, which must fill `size_hw`: pycocotools writes where they lead."""
    size_hw: Hw

    def _object(self) -> dict[str, Any]:
        return {"size": list(self.size_hw), "counts": self.counts}

    def extent(self) -> Floats:
        x, y, width, height = coco_mask.toBbox(self._object()).tolist()
        return np.array([x, y, x + width, y + height], dtype=np.float64)

    def window(self, original_hw: Hw, resized_hw: Hw, window: Window) -> Bitmap:
        y1, x1, y2, x2 = window
        return label_crop(coco_mask.decode(self._object()), resized_hw, (y1, x1), (y2 - y1, x2 - x1))

    def rle(self, original_hw: Hw) -> bytes:
        return self.counts


def mask_area(shape: Shape, original_hw: Hw) -> float:
    """Square pixels of a mask at the original size."""
    return float(coco_mask.area({"size": list(original_hw), "counts": shape.rle(original_hw)}))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Instances:
    """The truth of one image, K instances in the order of its annotation, crowd regions among them."""

    original_hw: Hw
    image_id: int
    listed: tuple[int, int]
    """The image's position in its annotation file's list, and the length of that list."""
    xywh: Floats
    """float64 (K, 4) as in the file: x, y, width, height."""
    labels: npt.NDArray[np.int64]
    """(K,), 0-based."""
    crowd: npt.NDArray[np.bool_]
    """(K,), regions of many uncounted objects."""
    area: Floats
    """float64 (K,) as in the file, square pixels; of the mask where the file has none."""
    ids: npt.NDArray[np.int64]
    """(K,), of the annotations."""
    shapes: tuple[Shape, ...]
    """K masks."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Id and reason of each other annotation of the image, which cannot be used."""
    stuff: npt.NDArray[np.uint8] | None = None
    """(H, W), a class for every pixel, 255 = ignored; None of data without stuff maps."""

    def __len__(self) -> int:
        return len(self.shapes)

    def extents(self) -> Floats:
        """float64 (K, 4), x1 y1 x2 y2 around each mask."""
        return np.array([shape.extent() for shape in self.shapes], dtype=np.float64).reshape(-1, 4)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a view shows of one instance: the tight box of its pixels, and the mask within it."""

    y: int
    x: int
    """The box's upper left corner in view pixels."""
    mask: Bitmap
    """uint8 (h, w), 0 or 1, a set pixel in each of its outer rows and columns."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1 y1 x2 y2."""
        return self.x, self.y, self.x + self.mask.shape[1], self.y + self.mask.shape[0]


def windows_of(
    extents: Floats, original_hw: Floats, resized_hw: Floats, crop_yx: Floats, valid_hw: Floats
) -> Floats:
    """Where resized masks can have pixels within the crop: y1 x1 y2 x2 in resized pixels, empty where y2 <=
    y1.

    Args: extents (..., 4); the others float64 (..., 2), y x, of the same leading sizes or broadcast to them.
    """
    scale = resized_hw / original_hw
    low = np.floor(extents[..., 1::-1] * scale) - DRAWN_MARGIN_PX
    high = np.ceil(extents[..., :1:-1] * scale) + DRAWN_MARGIN_PX
    return np.concatenate([np.maximum(low, crop_yx), np.minimum(high, crop_yx + valid_hw)], axis=-1)


def seen(shape: Shape, original_hw: Hw, view: View) -> Seen | None:
    """One mask under a view; None where no pixel of it is left."""
    sizes = (original_hw, view.resized_hw, view.crop_yx, view.valid_hw)
    y1, x1, y2, x2 = (
        windows_of(shape.extent(), *(np.array(size, np.float64) for size in sizes)).astype(int).tolist()
    )
    if y2 <= y1 or x2 <= x1:
        return None
    bitmap = shape.window(original_hw, view.resized_hw, (y1, x1, y2, x2))
    rows, columns = (np.flatnonzero(bitmap.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    tight = bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    y, x = y1 + int(rows[0]) - view.crop_yx[0], x1 + int(columns[0]) - view.crop_yx[1]
    if view.flip:
        return Seen(y, view.valid_hw[1] - x - tight.shape[1], tight[:, ::-1])
    return Seen(y, x, tight)


def packed(instances: Sequence[Seen]) -> dict[str, npt.NDArray[Any]]:
    """Masks cropped to their boxes, as stored: `mask_bits`, `mask_hw` and `mask_yx`; see `unpacked`."""
    bits = [np.packbits(one.mask, axis=None) for one in instances]
    return {
        "mask_bits": np.concatenate([np.zeros(0, np.uint8), *bits]),
        "mask_hw": np.array([one.mask.shape for one in instances], np.int32).reshape(-1, 2),
        "mask_yx": np.array([(one.y, one.x) for one in instances], np.int32).reshape(-1, 2),
    }


def unpacked(targets: Mapping[str, npt.NDArray[Any]]) -> list[Seen]:
    """The inverse of `packed`: each mask's bits start at a byte, in rows, the highest bit of a byte first."""
    found, start = [], 0
    for (height, width), (y, x) in zip(targets["mask_hw"].tolist(), targets["mask_yx"].tolist(), strict=True):
        stop = start + packed_bytes(height * width)
        bits = np.unpackbits(targets["mask_bits"][start:stop], count=height * width)
        found.append(Seen(y, x, bits.reshape(height, width)))
        start = stop
    return found


def packed_bytes(pixels: int) -> int:
    """Bytes of a packed mask of so many pixels."""
    return -(-pixels // 8)
