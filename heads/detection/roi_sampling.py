"""Sampling of RoIs for a training step: proposals and ground truth, matched and drawn.

Dims: N images, S samples an image, P proposals an image, G ground-truth boxes an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.boxes.assignment import BACKGROUND, AssignRule, DrawUniform, assign, draw_samples, gather_rows
from heads.boxes.ground_truth import GroundTruth
from heads.detection.rpn import Proposals

POSITIVE_SHARE = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class RoISamples:
    """Boxes to classify, refine and cut masks from; the positive ones of an image come first."""

    boxes_NS4: Tensor
    match_NS: Tensor
    """int64, the ground-truth box of a positive RoI; 0 for others."""
    positive_NS: Tensor
    """bool."""
    valid_NS: Tensor
    """bool; False is padding in images with too few candidates."""
    is_truth_NS: Tensor
    """bool; the box is a ground-truth box itself."""


@torch.no_grad()
def sample_rois(
    proposals: Proposals, truth: GroundTruth, rule: AssignRule, samples: int, draw: DrawUniform
) -> RoISamples:
    """Ground-truth boxes join the proposals as their own matches, then up to `samples` an image are drawn, at
    most a quarter of them positive."""
    matched_NP = assign(truth.boxes_NG4, truth.exists_NG, proposals.boxes_NP4, rule)
    images, boxes = truth.exists_NG.shape
    own_NG = torch.arange(boxes, device=matched_NP.device).expand(images, -1)
    candidates_NA4 = torch.cat([truth.boxes_NG4, proposals.boxes_NP4], 1)
    matched_NA = torch.cat([own_NG, matched_NP], 1)
    exists_NA = torch.cat([truth.exists_NG, proposals.exists_NP], 1)
    drawn = draw_samples(
        (matched_NA >= 0) & exists_NA,
        (matched_NA == BACKGROUND) & exists_NA,
        samples,
        int(POSITIVE_SHARE * samples),
        draw,
    )
    match_NS = matched_NA.gather(1, drawn.index_NS)
    return RoISamples(
        boxes_NS4=gather_rows(candidates_NA4, drawn.index_NS) * drawn.valid_NS[..., None],
        match_NS=torch.where(drawn.positive_NS, match_NS, 0),
        positive_NS=drawn.positive_NS,
        valid_NS=drawn.valid_NS,
        is_truth_NS=(drawn.index_NS < boxes) & drawn.valid_NS,
    )
