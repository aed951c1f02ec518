"""Box arithmetic: overlaps, regression deltas, clipping.

Boxes are x1 y1 x2 y2 in pixels of the view, continuous (a box over one pixel is 1 wide). Dims: N images, G
ground-truth boxes, A candidates (anchors or RoIs), 4 coordinates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MAX_LOG_RATIO = math.log(1000 / 16)  # mmdet:core/bbox/coder/delta_xywh_bbox_coder.py, wh_ratio_clip
_LEAST_SIDE_PX = 1e-6  # the logarithm of a side of 0 would be infinite
_LEAST_UNION_PX2 = 1e-6  # two empty boxes overlap by 0, not by 0 / 0


def encode_boxes(boxes: Tensor, references: Tensor, stds: Tensor) -> Tensor:
    """Deltas (..., 4) that move each reference onto its box: dx dy dw dh, divided by `stds` (4,).

    References of zero size count as one pixel large, so that their deltas are finite; they are never used.
    """
    size_2 = (references[..., 2:] - references[..., :2]).clamp(min=0)
    size_2 = torch.where(size_2 > 0, size_2, 1)
    target_size_2 = (boxes[..., 2:] - boxes[..., :2]).clamp(min=_LEAST_SIDE_PX)
    shift_2 = (boxes[..., :2] + boxes[..., 2:] - references[..., :2] - references[..., 2:]) / (2 * size_2)
    return torch.cat([shift_2, (target_size_2 / size_2).log()], -1) / stds


def decode_boxes(deltas: Tensor, references: Tensor, stds: Tensor) -> Tensor:
    """Boxes (..., 4): `references` moved by `deltas`; sizes change at most by a factor of 1000 / 16.

    Differs from torchvision's coder in that shrinking has that limit too, as in mmdet.
    """
    deltas = deltas * stds
    size_2 = references[..., 2:] - references[..., :2]
    centre_2 = references[..., :2] + 0.5 * size_2 + deltas[..., :2] * size_2
    half_2 = 0.5 * size_2 * deltas[..., 2:].clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()
    return torch.cat([centre_2 - half_2, centre_2 + half_2], -1)


def clip_boxes(boxes_NA4: Tensor, size_N2: Tensor) -> Tensor:
    """Boxes cut to images of `size` (y, x) pixels.

    NaN coordinates, of a head that diverges, become 0: RoIAlign then reads nothing outside its maps, and the
    loss shows the NaN.
    """
    limit_N14 = size_N2.flip(-1).repeat(1, 2)[:, None]
    return torch.minimum(boxes_NA4.nan_to_num(nan=0.0).clamp_(min=0), limit_N14)


def box_areas(boxes: Tensor) -> Tensor:
    """(...): width x height."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(boxes_NG4: Tensor, candidates_NA4: Tensor) -> Tensor:
    """Intersection over union (N, G, A); `candidates` of one image (1, A, 4) serve all."""
    x1, y1, x2, y2 = boxes_NG4[:, :, None].unbind(-1)
    a1, b1, a2, b2 = candidates_NA4[:, None].unbind(-1)
    # In place: with all anchors of 16 images every intermediate result is hundreds of megabytes.
    overlap_NGA = torch.minimum(x2, a2).sub_(torch.maximum(x1, a1)).clamp_(min=0)
    overlap_NGA.mul_(torch.minimum(y2, b2).sub_(torch.maximum(y1, b1)).clamp_(min=0))
    union_NGA = box_areas(boxes_NG4)[:, :, None] + box_areas(candidates_NA4)[:, None] - overlap_NGA
    return overlap_NGA.div_(union_NGA.clamp_(min=_LEAST_UNION_PX2))


def generalized_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(...,) in -1..1: the IoU of each box with its own other one, less the share of their hull that neither
    covers.

    Rezatofighi et al., CVPR 2019; least areas as in mmdet:core/bbox/iou_calculators/iou2d_calculator.py.
    torchvision's generalized_box_iou_loss is the same but waits for the device.
    """
    first_2 = torch.maximum(boxes[..., :2], others[..., :2])
    last_2 = torch.minimum(boxes[..., 2:], others[..., 2:])
    overlap = (last_2 - first_2).clamp(min=0).prod(-1)
    union = (box_areas(boxes) + box_areas(others) - overlap).clamp(min=_LEAST_UNION_PX2)
    hull_first_2 = torch.minimum(boxes[..., :2], others[..., :2])
    hull_last_2 = torch.maximum(boxes[..., 2:], others[..., 2:])
    hull = (hull_last_2 - hull_first_2).clamp(min=0).prod(-1).clamp(min=_LEAST_UNION_PX2)
    return overlap / union - (hull - union) / hull
