"""RoIs of mask heads: positive RoIs and their mask targets in training, detections in prediction.

Dims: R positive RoIs of all images, M 28 cells a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heads.boxes.conventions import Conventions
from heads.boxes.ground_truth import GroundTruth
from heads.boxes.mask_targets import sample_masks
from heads.boxes.postprocess import Detections
from heads.boxes.roi_align import flat_rois
from heads.detection.mask_head import MASK_SIZE
from heads.detection.roi_sampling import RoISamples


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskRoIs:
    """RoIs of all images in one row; never empty, so that every parameter has a gradient in every step."""

    boxes_R4: Tensor
    image_R: Tensor
    """int64."""
    label_R: Tensor
    """int64, from 0."""
    instance_R: Tensor
    """int64, image * G + box: whose mask it is."""
    counts_R: Tensor
    """bool; False for the placeholder RoI if no image has a positive one."""


def positive_rois(rois: RoISamples, truth: GroundTruth) -> MaskRoIs:
    """Positive RoIs of all images. Waits for the device once, for their number."""
    positive_R = rois.positive_NS.flatten()
    row_R = positive_R.nonzero()[:, 0]
    if not len(row_R):
        row_R = row_R.new_zeros(1)
    boxes_R4, image_R = (each[row_R] for each in flat_rois(rois.boxes_NS4))
    match_R = rois.match_NS.flatten()[row_R]
    return MaskRoIs(
        boxes_R4=boxes_R4,
        image_R=image_R,
        label_R=truth.labels_NG[image_R, match_R],
        instance_R=image_R * truth.labels_NG.shape[1] + match_R,
        counts_R=positive_R[row_R],
    )


def mask_targets(rois: MaskRoIs, truth: GroundTruth, conventions: Conventions) -> Tensor:
    """float32 (R, M, M): 0 and 1, or fractions if the conventions set no threshold."""
    assert truth.crops is not None, "a head that learns masks asks for them"
    shares_RMM = sample_masks(
        truth.crops,
        rois.instance_R,
        rois.boxes_R4,
        truth.image_hw_N2[rois.image_R],
        MASK_SIZE,
        aligned=conventions.aligned,
    )
    return (shares_RMM >= 0.5).float() if conventions.binary_masks else shares_RMM


def rois_of_detections(found: Sequence[Detections]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (R, 4), images (R,) and labels (R,) of all images' detections in one row."""
    image_R = torch.cat([torch.full_like(each.labels_D, row) for row, each in enumerate(found)])
    boxes_R4 = torch.cat([each.boxes_D4 for each in found])
    return boxes_R4, image_R, torch.cat([each.labels_D for each in found])


def split_by_image(values_Rx: Tensor, found: Sequence[Detections]) -> list[Tensor]:
    return list(torch.split(values_Rx, [len(each.labels_D) for each in found]))
