"""One depth map from the views of an image: mirrored back, averaged where windows overlap.

As MIM-Depth-Estimation's test.py; its windows lie in a part of the image where the data has one (KITTI).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from heads.depth.base import resized_map

Hw = tuple[int, int]
Box = tuple[int, int, int, int]
"""Rows and columns, each from and to (excluded)."""
_PLACES = ("resized_y", "resized_x", "crop_y", "crop_x")


def merged_views(views: Iterable[tuple[Mapping[str, float], Tensor]], original_hw: Hw) -> tuple[Box, Tensor]:
    """The part of the original image that the views show, and its depth.

    Args:
        views: parameters of each view (`extract.views.view.VIEW_PARAMS`), and its depth in its own valid
            pixels, float32 (y, x), mirrored where the view is.
        original_hw: of the image.

    Raises ValueError for no view, and for views that do not cover the smallest box around them.
    """
    total: Tensor | None = None
    boxes: list[Box] = []
    resized = (0, 0)
    for params, depth_yx in views:
        height, width, top, left = (int(params[name]) for name in _PLACES)
        if total is None:
            resized = height, width
            total, count = (torch.zeros(resized, device=depth_yx.device) for _ in range(2))
        box = (top, top + depth_yx.shape[0], left, left + depth_yx.shape[1])
        place = slice(box[0], box[1]), slice(box[2], box[3])
        total[place] += depth_yx.flip(-1) if params.get("flip") else depth_yx
        count[place] += 1
        boxes.append(box)
    if total is None:
        raise ValueError("an image without views: rows of it are missing in the store")
    around = _around(boxes)
    if not _is_covered(around, boxes):
        raise ValueError("windows do not cover the image: rows of it are missing in the store")
    part = slice(around[0], around[1]), slice(around[2], around[3])
    shown = _scaled(around, resized, original_hw)
    mean_YX = total[part] / count[part]
    return shown, resized_map(mean_YX, (shown[1] - shown[0], shown[3] - shown[2]))


def _around(boxes: Iterable[Box]) -> Box:
    tops, bottoms, lefts, rights = zip(*boxes, strict=True)
    return min(tops), max(bottoms), min(lefts), max(rights)


def _is_covered(around: Box, boxes: Iterable[Box]) -> bool:
    """On the host, which would have to wait for counts on a device."""
    seen = torch.zeros(around[1] - around[0], around[3] - around[2], dtype=torch.bool)
    for top, bottom, left, right in boxes:
        seen[top - around[0] : bottom - around[0], left - around[2] : right - around[2]] = True
    return bool(seen.all())


def _scaled(box: Box, resized: Hw, original: Hw) -> Box:
    """A box of the resized image in pixels of the original.

    >>> _scaled((0, 240, 10, 320), (240, 320), (480, 640))
    (0, 480, 20, 640)
    """
    if resized == original:
        return box
    rows, columns = ([round(p * original[a] / resized[a]) for p in box[2 * a : 2 * a + 2]] for a in (0, 1))
    return rows[0], max(rows[1], rows[0] + 1), columns[0], max(columns[1], columns[0] + 1)
