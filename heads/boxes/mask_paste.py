"""Masks of detections in pixels of an image (mmdet:models/roi_heads/mask_heads/fcn_mask_head.py,
_do_paste_mask): bilinear (align_corners False), pixel centres at +0.5, cut at 0.5.

A detection stores its mask as 28 x 28 probabilities over its box; pixels are computed on demand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.contract import SizeYX

_THRESHOLD = 0.5
_PASTE_PIXELS = 16 << 20  # 16 Mpx at a time: 192 MiB of float32 with the grid


def paste_masks(prediction: Mapping[str, Tensor], size: SizeYX) -> Tensor:
    """uint8 (D, *size), 1 where a pixel's centre is in the mask; a detection head's prediction of an image of
    `size` pixels. 100 detections on 2 megapixels take 200 MB: `each_mask` gives one at a time."""
    probs_DMM, boxes_D4 = prediction["mask_probs"], prediction["boxes"]
    masks_DYX = torch.zeros(len(boxes_D4), *size, dtype=torch.uint8, device=boxes_D4.device)
    chunk = max(1, _PASTE_PIXELS // max(1, size[0] * size[1]))
    for first in range(0, len(boxes_D4), chunk):
        rows = slice(first, first + chunk)
        masks_DYX[rows] = _paste(probs_DMM[rows], boxes_D4[rows], (0, 0), size)
    return masks_DYX


def each_mask(prediction: Mapping[str, Tensor], size: SizeYX) -> Iterator[tuple[SizeYX, Tensor]]:
    """((first row, first column), uint8 (y, x)) of each detection in order: its mask in the part of the image
    that its box covers; all other pixels are 0."""
    boxes: list[list[float]] = prediction["boxes"].tolist()
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        one = slice(row, row + 1)
        (top, bottom), (left, right) = _span(y1, y2, size[0]), _span(x1, x2, size[1])
        rows = max(1, _PASTE_PIXELS // max(1, right - left))
        parts = [
            _paste(
                prediction["mask_probs"][one],
                prediction["boxes"][one],
                (first, left),
                (min(rows, bottom - first), right - left),
            )[0]
            for first in range(top, max(bottom, top + 1), rows)
        ]
        yield (top, left), torch.cat(parts)


def _span(low: float, high: float, pixels: int) -> tuple[int, int]:
    """Pixels that low..high touches, plus one each side for centres on the edge."""
    first = min(max(int(low) - 1, 0), pixels)
    return first, max(first, min(int(high) + 2, pixels))


def _paste(probs_DMM: Tensor, boxes_D4: Tensor, first: SizeYX, size: SizeYX) -> Tensor:
    if not (size[0] and size[1] and len(boxes_D4)):
        return torch.zeros(len(boxes_D4), *size, dtype=torch.uint8, device=boxes_D4.device)
    grids = []
    for axis in (1, 0):
        low_D1, high_D1 = boxes_D4[:, axis, None], boxes_D4[:, axis + 2, None]
        centre = torch.arange(size[1 - axis], device=boxes_D4.device) + (first[1 - axis] + 0.5)
        # A box without area has no inside: its grid lies outside everywhere.
        extent_D1 = (high_D1 - low_D1).clamp(min=1e-6)
        grids.append((centre - low_D1) / extent_D1 * 2 - 1)
    y_DY, x_DX = grids
    shape = (-1, *size)
    grid_DYX2 = torch.stack([x_DX[:, None].expand(shape), y_DY[:, :, None].expand(shape)], -1)
    values_DYX = F.grid_sample(probs_DMM[:, None], grid_DYX2, align_corners=False)[:, 0]
    return (values_DYX >= _THRESHOLD).to(torch.uint8)
