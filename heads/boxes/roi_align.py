"""RoIAlign on the level that fits each box (mmdet:models/roi_heads/roi_extractors/
single_level_roi_extractor.py).

Dims: N images, P boxes an image, R boxes of all images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from heads.boxes.boxes import box_areas

_CANONICAL_CELLS = 14  # boxes up to twice 14 cells a side read the finest level: 56 px at stride 4


def flat_rois(boxes_NP4: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (N * P, 4) and their images, int64 (N * P,), of as many boxes in every image."""
    images, boxes = boxes_NP4.shape[:2]
    image_R = torch.arange(images, device=boxes_NP4.device).repeat_interleave(boxes)
    return boxes_NP4.flatten(0, 1), image_R


def roi_levels(boxes_R4: Tensor, finest_stride_px: float, levels: int) -> Tensor:
    """int64 (R,): floor(log2(sqrt(area) / 56 px)) cut to 0..levels - 1, for a finest stride of 4 px."""
    side_R = box_areas(boxes_R4).clamp(min=0).sqrt()
    octave_R = (side_R / (_CANONICAL_CELLS * finest_stride_px) + 1e-6).log2().floor()
    return octave_R.clamp(0, levels - 1).long()


def pool_rois(
    maps: Sequence[Tensor],
    strides_px: Sequence[float],
    boxes_R4: Tensor,
    image_R: Tensor,
    cells: int,
    *,
    aligned: bool = True,
) -> Tensor:
    """(R, channels, cells, cells): each box read from its level, in as many points as the level has cells.

    Args:
        maps: float32 (N, channels, y, x), finest first, each half the size of the one before.
        boxes_R4, image_R: boxes in pixels and the image of each.

    Waits for the device once, to learn how many boxes each level has.
    """
    rois_R5 = torch.cat([image_R[:, None].to(boxes_R4.dtype), boxes_R4], 1)
    level_R = roi_levels(boxes_R4, strides_px[0], len(maps))
    if torch.compiler.is_exporting():  # no shape may depend on values: every level is read for all boxes
        pooled = [
            roi_align(x_NCYX, rois_R5, (cells, cells), 1 / stride_px, 0, aligned)
            * (level_R == level)[:, None, None, None]
            for level, (x_NCYX, stride_px) in enumerate(zip(maps, strides_px, strict=True))
        ]
        return torch.stack(pooled).sum(0)
    by_level_R = level_R.argsort()
    # torch.bincount would wait a second time, for the highest level.
    number_L = torch.arange(len(maps), device=level_R.device)
    counts: list[int] = (level_R[:, None] == number_L).sum(0).tolist()
    pooled_RCyx = maps[0].new_empty(len(boxes_R4), maps[0].shape[1], cells, cells)
    for x_NCYX, stride_px, rows_r in zip(maps, strides_px, torch.split(by_level_R, counts), strict=True):
        part_rCyx = roi_align(x_NCYX, rois_R5[rows_r], (cells, cells), 1 / stride_px, 0, aligned)
        pooled_RCyx[rows_r] = part_rCyx
    return pooled_RCyx
