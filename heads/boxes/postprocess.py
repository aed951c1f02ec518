"""Post-processing of detections: thresholds and NMS over class probabilities and refined boxes.

Dims: P RoIs of an image, K classes, B boxes a RoI (K, or 1 for all classes), D detections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

from heads.boxes.nms import soft_nms, soft_nms_rounds, suppress_padded


@dataclass(frozen=True, kw_only=True, slots=True)
class Detections:
    """Detections of an image, best first."""

    boxes_D4: Tensor
    """float32, in pixels of the view."""
    scores_D: Tensor
    labels_D: Tensor
    """int64, from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectRule:
    """Which of an image's boxes become detections."""

    least_score: float
    """Boxes of this probability or less are dropped."""
    nms_iou: float
    """Of two boxes of one class that overlap by more than this, the better one stays."""
    most: int
    """Most detections of an image."""
    soft: bool
    """Overlapping boxes lose score instead (heads/boxes/nms.py)."""
    least_px: float
    """Boxes not wider and higher than this are dropped."""


def detect(boxes_PB4: Tensor, probabilities_PK: Tensor, rule: DetectRule) -> Detections:
    """Every class of every RoI is a candidate; NMS runs per class.

    Boxes are clipped to the image; RoIs that do not exist have probabilities of 0. Waits for the device.
    """
    boxes_PK4 = boxes_PB4.expand(-1, probabilities_PK.shape[1], -1)
    large_PK = ((boxes_PK4[..., 2:] - boxes_PK4[..., :2]) > rule.least_px).all(-1)
    if torch.compiler.is_exporting():
        return _detect_padded(boxes_PK4, torch.where(large_PK, probabilities_PK, 0.0), rule)
    roi_J, label_J = ((probabilities_PK > rule.least_score) & large_PK).nonzero(as_tuple=True)
    boxes_J4, scores_J = boxes_PK4[roi_J, label_J], probabilities_PK[roi_J, label_J]
    if rule.soft:
        kept_D, scores_D = soft_nms(
            boxes_J4, scores_J, label_J, iou=rule.nms_iou, least_score=rule.least_score, most=rule.most
        )
    else:
        kept_D = batched_nms(boxes_J4, scores_J, label_J, rule.nms_iou)[: rule.most]
        scores_D = scores_J[kept_D]
    return Detections(boxes_D4=boxes_J4[kept_D], scores_D=scores_D, labels_D=label_J[kept_D])


def _detect_padded(boxes_PK4: Tensor, scores_PK: Tensor, rule: DetectRule) -> Detections:
    """As `detect`, `rule.most` rows in all: those after the last detection have score 0 and label -1."""
    rois, classes = scores_PK.shape
    # Class probabilities sum to 1 at most: so many classes of a RoI can be above the least score.
    likely = min(classes, math.ceil(1 / rule.least_score) if rule.least_score else classes)
    above_PK = torch.where(scores_PK > rule.least_score, scores_PK, 0.0)
    scores_J, index_J = above_PK.flatten().topk(likely * rois)
    boxes_J4, label_J = boxes_PK4.flatten(0, 1)[index_J], index_J % classes
    if rule.soft:
        kept_D, scores_D = soft_nms_rounds(boxes_J4, scores_J, label_J, rule.nms_iou, rule.most)
        kept_D = torch.where(scores_D > rule.least_score, kept_D, len(scores_J))
    else:
        # Boxes of different classes are moved apart, so that they do not overlap.
        apart_J1 = (label_J * (boxes_J4.amax() + 1))[:, None]
        kept_D = suppress_padded(boxes_J4 + apart_J1, scores_J, rule.nms_iou, rule.most)
        scores_D = F.pad(scores_J, (0, 1))[kept_D]
    return Detections(
        boxes_D4=F.pad(boxes_J4, (0, 0, 0, 1))[kept_D],
        scores_D=torch.where(kept_D < len(scores_J), scores_D, 0.0),
        labels_D=F.pad(label_J, (0, 1), value=-1)[kept_D],
    )


def to_output(detections: Detections, valid_hw_2: Tensor, output_hw_2: Tensor) -> Tensor:
    """Boxes (D, 4) in pixels of an output of `output_hw`, which the view's valid part covers."""
    scale_4 = (output_hw_2 / valid_hw_2).flip(0).repeat(2)
    return detections.boxes_D4 * scale_4
