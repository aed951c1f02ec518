"""Post-processing of detections: thresholds and NMS over class probabilities and refined boxes.

Dims: P RoIs of an image, K classes, B boxes a RoI (K, or 1 for all classes), D detections.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torchvision.ops import batched_nms

from heads.boxes.nms import soft_nms


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


def to_output(detections: Detections, valid_hw_2: Tensor, output_hw_2: Tensor) -> Tensor:
    """Boxes (D, 4) in pixels of an output of `output_hw`, which the view's valid part covers."""
    scale_4 = (output_hw_2 / valid_hw_2).flip(0).repeat(2)
    return detections.boxes_D4 * scale_4
