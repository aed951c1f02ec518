"""Details in which implementations of Mask R-CNN differ: mmdet's conventions, and torchvision's."""

from __future__ import annotations

from dataclasses import dataclass

from heads.boxes.assignment import AssignRule


@dataclass(frozen=True, kw_only=True, slots=True)
class Conventions:
    """Choices that change the results of a Mask R-CNN with the same weights."""

    rounded_anchors: bool
    """Corners of the cell anchors are whole pixels."""
    aligned: bool
    """RoIAlign shifts by half a pixel (-0.5); without it, features are half a cell off."""
    rpn_rule: AssignRule
    roi_rule: AssignRule
    rpn_beta: float
    """Where the RPN's smooth L1 turns linear, in deltas; 0 is plain L1."""
    box_beta: float
    """The same of the box head."""
    background_first: bool
    """Background is class 0 and has its own regression and mask outputs; otherwise it is the last class."""
    binary_masks: bool
    """Mask targets are thresholded at 0.5; otherwise they are fractions."""
    least_proposal_px: float
    """Proposals not wider and higher than this are dropped."""
    least_detection_px: float
    """The same of detections; -1 drops none."""


MMDET = Conventions(
    rounded_anchors=False,
    aligned=True,
    rpn_rule=AssignRule(positive_iou=0.7, negative_iou=0.3, rescue_iou=0.3),
    roi_rule=AssignRule(positive_iou=0.5, negative_iou=0.5, rescue_iou=0.5),
    rpn_beta=0.0,
    box_beta=0.0,
    background_first=False,
    binary_masks=True,
    least_proposal_px=0.0,
    least_detection_px=-1.0,
)
"""Swin-Transformer-Object-Detection:configs/_base_/models/mask_rcnn_swin_fpn.py"""

TORCHVISION = Conventions(
    rounded_anchors=True,
    aligned=False,
    rpn_rule=AssignRule(positive_iou=0.7, negative_iou=0.3, rescue_iou=0.0, rescued_take_best=True),
    roi_rule=AssignRule(positive_iou=0.5, negative_iou=0.5, rescue_iou=None),
    rpn_beta=1 / 9,
    box_beta=1 / 9,
    background_first=True,
    binary_masks=False,
    least_proposal_px=1e-3,
    least_detection_px=1e-2,
)
"""torchvision:models/detection/{rpn,roi_heads,mask_rcnn}.py"""

CONVENTIONS = {"mmdet": MMDET, "torchvision": TORCHVISION}
