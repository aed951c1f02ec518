"""Base of detection heads: input norms, neck, region proposals; boxes and masks in, detections out.

Where a training step waits for the device (benchmarks/training/detection.py counts it on CUDA): in the
proposals' NMS of each level, once for 8 rounds of some images (heads/boxes/nms.py); for each set of RoIs once
where it is pooled (heads/boxes/roi_align.py); for masks also once to find the positive RoIs
(heads/detection/mask_branch.py) and once for their sizes (heads/boxes/mask_targets.py). Nowhere else.

Dims: N images, P proposals an image, D detections of an image.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heads.boxes.assignment import DrawUniform, uniform_draws
from heads.boxes.conventions import CONVENTIONS, Conventions
from heads.boxes.ground_truth import BOX_TARGETS, TRUTH_TARGETS, GroundTruth, image_sizes, stack_truth
from heads.boxes.postprocess import Detections, DetectRule, to_output
from heads.boxes.roi_align import pool_rois
from heads.contract import (
    Features,
    Head,
    SizeYX,
    Targets,
    check_bool,
    check_choice,
    check_int,
    check_output_sizes,
    check_probability,
)
from heads.detection.rpn import Proposals, RegionProposals
from heads.errors import HeadError
from heads.necks.contract import NECK_NORMS
from heads.necks.input_norm import INPUT_NORMS, build_input_norms
from heads.necks.table import build_neck, check_neck
from stores.pyramid import PyramidSpec

Prediction = dict[str, Tensor]
"""boxes: float32 (D, 4), x1 y1 x2 y2 in pixels of the output; scores: float32 (D,), best first; labels: int64
(D,), from 0; mask_probs: float32 (D, 28, 28), the object's probability in 28 x 28 cells over its box.
heads/boxes/mask_paste.py turns them into pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionSettings:
    """Raises HeadError for a value out of range."""

    neck: str = "fpn"
    """fpn | fpn-res | bifpn, or another of heads/necks."""
    neck_depth: int = 1
    """Layers of a BiFPN, residual blocks on each level of fpn-res, 1..16; an FPN has 1."""
    width: int = 256
    """Channels of the neck's maps, 8..4096."""
    input_norm: str = "ln"
    """Norm per level over the channels: ln | ln_no_affine | none."""
    norm: str = "gn"
    """Norm inside a BiFPN and inside residual blocks: gn | none."""
    anchor_scale: float = 8.0
    """Side of the square anchor in strides: 8 at stride 4 is 32 px."""
    rpn_samples: int = 256
    """Anchors an image in the loss of the region proposals, at most half of them on objects."""
    border_anchors: bool = True
    """Anchors that reach beyond the image enter that loss: True for Mask R-CNN (allowed_border=-1 of mmdet),
    False for cascades (allowed_border=0)."""
    candidates: int = 2000
    """Anchors a level that enter NMS in training."""
    proposals: int = 1000
    """Proposals an image in training."""
    test_candidates: int = 1000
    """Anchors a level that enter NMS in prediction."""
    test_proposals: int = 1000
    """Proposals an image in prediction."""
    roi_samples: int = 512
    """RoIs an image in the losses of the heads, at most a quarter of them on objects."""
    box_width: int = 1024
    """Width of the box head's two layers."""
    masks: bool = True
    """Learn and predict masks; off, a head learns from boxes and labels alone."""
    mask_width: int = 256
    """Channels of the mask head."""
    detections: int = 100
    """Most detections of an image."""
    score_threshold: float = 0.05
    """Least score of a detection, exclusive, 0..0.9."""
    nms_iou: float = 0.5
    """Largest overlap of two detections of one class, 0..0.9."""
    soft_nms: bool = False
    """Boxes that overlap a better one by more than nms_iou lose score instead of being dropped (linear)."""
    conventions: str = "mmdet"
    """mmdet | torchvision: whose rounding, alignment, losses and class order to follow. Both train equally
    well; torchvision's serves comparisons with it."""

    def __post_init__(self) -> None:
        check_neck(self.neck, self.neck_depth)
        for name in ("width", "box_width", "mask_width"):
            check_int(name, getattr(self, name), 8, 4096)
        check_choice("input_norm", self.input_norm, INPUT_NORMS)
        check_choice("norm", self.norm, NECK_NORMS)
        scale = self.anchor_scale
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= 64:
            raise HeadError(f"anchor_scale is {self.anchor_scale!r}, expected a number above 0, 64 at most")
        for name in ("rpn_samples", "roi_samples"):
            check_int(name, getattr(self, name), 4, 1 << 24)
        for name in ("candidates", "proposals", "test_candidates", "test_proposals", "detections"):
            check_int(name, getattr(self, name), 1, 100_000)
        check_probability("score_threshold", self.score_threshold)
        check_probability("nms_iou", self.nms_iou)
        check_bool("border_anchors", self.border_anchors)
        check_bool("soft_nms", self.soft_nms)
        check_bool("masks", self.masks)
        check_choice("conventions", self.conventions, tuple(CONVENTIONS))


class DetectionHead(Head):
    """A neck and region proposals; subclasses add the RoI heads."""

    task = "detection"
    decays_norms = True  # mmdet

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: DetectionSettings) -> None:
        super().__init__(pyramid, num_classes)
        self.settings = settings
        self.conventions = self.choose_conventions()
        channels = [level.channels for level in pyramid]
        strides_px = [level.stride_px for level in pyramid]
        self.roi_strides_px = tuple(strides_px)
        self.input_norms = build_input_norms(settings.input_norm, channels)
        self.neck = build_neck(
            settings.neck,
            channels,
            settings.width,
            depth=settings.neck_depth,
            norm=settings.norm,
            extra_levels=1,
        )
        self.rpn = RegionProposals(
            settings.width,
            [*strides_px, 2 * strides_px[-1]],
            settings.anchor_scale,
            self.conventions,
            border_anchors=settings.border_anchors,
        )

    @property
    def target_names(self) -> tuple[str, ...]:
        return TRUTH_TARGETS if self.settings.masks else BOX_TARGETS

    @property
    def necks(self) -> Mapping[str, nn.Module]:
        return {self.settings.neck: self.neck}

    def choose_conventions(self) -> Conventions:
        return CONVENTIONS[self.settings.conventions]

    def losses(
        self,
        features: Features,
        targets: Targets,
        valid_hw: Sequence[SizeYX],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """ "loss_rpn_cls" and "loss_rpn_box" of the region proposals, and the losses of the RoI heads.

        Targets as in heads/boxes/ground_truth.py's `stack_truth`. Images without boxes train background.
        """
        maps = self.neck_maps(features, valid_hw)
        device = maps[0].device
        truth = stack_truth(targets, valid_hw, self.num_classes, device, masks=self.settings.masks)
        draw = uniform_draws(generator, device)
        scores = self.rpn(maps)
        losses: dict[str, Tensor] = self.rpn.losses(scores, truth, self.settings.rpn_samples, draw)
        proposals = self.rpn.propose(
            scores, truth.image_hw_N2, self.settings.candidates, self.settings.proposals
        )
        roi_losses = self.roi_losses(_full(maps), proposals, targets, truth, draw)
        return {**losses, **roi_losses}

    @torch.no_grad()
    def predict(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> list[Prediction]:
        """Detections of each image, best first:

        boxes: float32 (D, 4), x1 y1 x2 y2 in pixels of `output_hw`, inside it
        scores: float32 (D,)
        labels: int64 (D,), from 0
        mask_probs: float32 (D, 28, 28), the object's probability in 28 x 28 cells over its box; not there
            with masks off

        `heads.boxes.mask_paste.paste_masks(prediction, size)` returns the masks as uint8 (D, *size),
        `each_mask` one at a time.
        """
        check_output_sizes(valid_hw, output_hw)
        maps = self.neck_maps(features, valid_hw)
        sizes_N2 = image_sizes(valid_hw, maps[0].device)
        proposals = self.rpn.propose(
            self.rpn(maps), sizes_N2, self.settings.test_candidates, self.settings.test_proposals
        )
        found, mask_probs = self.detect(_full(maps), proposals, sizes_N2)
        output_N2 = image_sizes(output_hw, maps[0].device)
        return [
            {
                "boxes": to_output(each, sizes_N2[row], output_N2[row]),
                "scores": each.scores_D,
                "labels": each.labels_D,
                **({} if mask_probs is None else {"mask_probs": mask_probs[row]}),
            }
            for row, each in enumerate(found)
        ]

    @abstractmethod
    def roi_losses(
        self,
        maps: Sequence[Tensor],
        proposals: Proposals,
        targets: Targets,
        truth: GroundTruth,
        draw: DrawUniform,
    ) -> dict[str, Tensor]:
        """Losses of the RoI heads. Maps are the neck's, float32, the coarsest last."""

    @abstractmethod
    def detect(
        self, maps: Sequence[Tensor], proposals: Proposals, image_hw_N2: Tensor
    ) -> tuple[list[Detections], list[Tensor] | None]:
        """Detections of each image and their masks' probabilities (D, 28, 28), None with masks off."""

    @property
    def detect_rule(self) -> DetectRule:
        return DetectRule(
            least_score=self.settings.score_threshold,
            nms_iou=self.settings.nms_iou,
            most=self.settings.detections,
            soft=self.settings.soft_nms,
            least_px=self.conventions.least_detection_px,
        )

    def pool(self, maps: Sequence[Tensor], boxes_R4: Tensor, image_R: Tensor, cells: int) -> Tensor:
        """(R, width, cells, cells): RoIs pooled from the neck's maps, all but the coarsest."""
        return pool_rois(
            maps[:-1], self.roi_strides_px, boxes_R4, image_R, cells, aligned=self.conventions.aligned
        )

    def neck_maps(self, features: Features, valid_hw: Sequence[SizeYX]) -> list[Tensor]:
        """The maps that region proposals and RoIs are read from, finest first."""
        maps = self.select_maps(features, valid_hw)
        normed = [norm(x_NCYX) for norm, x_NCYX in zip(self.input_norms, maps, strict=True)]
        pyramid: list[Tensor] = self.neck(normed)
        return pyramid


def _full(maps: Sequence[Tensor]) -> list[Tensor]:
    """float32: RoIAlign reads no bfloat16, and each pooling would convert the maps again."""
    return [x_NCYX.float() for x_NCYX in maps]
