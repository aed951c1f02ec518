"""Cascade Mask R-CNN: three box heads, each on the boxes refined by the one before, and three mask heads.

Swin-Transformer-Object-Detection@c7b2011:configs/swin/cascade_mask_rcnn_swin_*_giou_4conv1f_*.py over
configs/_base_/models/cascade_mask_rcnn_swin_fpn.py, whose two fully connected layers a head are an option.

Dims: N images, P RoIs an image, R RoIs of all images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from heads.boxes.assignment import AssignRule, DrawUniform
from heads.boxes.boxes import clip_boxes
from heads.boxes.conventions import CONVENTIONS, Conventions
from heads.boxes.ground_truth import GroundTruth
from heads.boxes.postprocess import Detections, detect
from heads.boxes.roi_align import flat_rois
from heads.contract import HeadPreset, Targets, check_choice
from heads.detection.base import DetectionHead, DetectionSettings
from heads.detection.box_head import BOX_CELLS, BoxHead, ConvBoxHead
from heads.detection.mask_branch import mask_targets, positive_rois, rois_of_detections, split_by_image
from heads.detection.mask_head import MASK_CELLS, MaskHead, mask_loss
from heads.detection.roi_sampling import RoISamples, sample_rois
from heads.detection.rpn import Proposals
from heads.necks.former_settings import translate_neck_settings
from heads.plain.blocks import last_block
from heads.plain.rescale import OfLastBlock, on_plain
from stores.pyramid import PyramidSpec

ReadRoIs = Callable[[Tensor, Tensor, int], Tensor]
"""(boxes (R, 4), images (R,), cells) -> features (R, width, cells, cells)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    iou: float
    """Overlap from which a RoI is matched to an object."""
    weight: float
    """Weight of its losses."""
    stds: tuple[float, float, float, float]
    """Scale of its deltas, smaller in each stage as boxes get better."""


BOX_HEADS = {"2fc": BoxHead, "giou_4conv1fc": ConvBoxHead}

STAGES = (
    Stage(iou=0.5, weight=1.0, stds=(0.1, 0.1, 0.2, 0.2)),
    Stage(iou=0.6, weight=0.5, stds=(0.05, 0.05, 0.1, 0.1)),
    Stage(iou=0.7, weight=0.25, stds=(0.033, 0.033, 0.067, 0.067)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CascadeSettings(DetectionSettings):
    """Raises HeadError for a value out of range."""

    proposals: int = 2000
    """Proposals an image in training."""
    box_head: str = "giou_4conv1fc"
    """giou_4conv1fc: four convolutions and one layer, boxes refined per class and compared by GIoU, as in
    Swin's published configurations; 2fc: two fully connected layers, boxes refined for all classes alike."""
    border_anchors: bool = False
    """Anchors that reach beyond the image enter the loss of the region proposals."""

    def __post_init__(self) -> None:
        DetectionSettings.__post_init__(self)
        check_choice("box_head", self.box_head, tuple(BOX_HEADS))


class Cascade(DetectionHead):
    """Box and mask heads in three stages; with the box head 2fc boxes are refined for all classes alike."""

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: CascadeSettings) -> None:
        super().__init__(pyramid, num_classes, settings)
        background_first = self.conventions.background_first
        self.box_heads = nn.ModuleList(
            BOX_HEADS[settings.box_head](
                settings.width,
                settings.box_width,
                num_classes,
                stds=stage.stds,
                beta=self.conventions.box_beta,
                class_agnostic=settings.box_head == "2fc",
                background_first=background_first,
            )
            for stage in STAGES
        )
        self.first_class = 1 if background_first else 0
        stages_with_masks = len(STAGES) if settings.masks else 0
        self.mask_heads = nn.ModuleList(self.build_mask_head(stage) for stage in range(stages_with_masks))

    def build_mask_head(self, stage: int) -> MaskHead:
        return MaskHead(self.settings.width, self.settings.mask_width, self.num_classes + self.first_class)

    def choose_conventions(self) -> Conventions:
        """The chosen conventions, with the smooth box losses of cascades."""
        return replace(CONVENTIONS[self.settings.conventions], rpn_beta=1 / 9, box_beta=1.0)

    def roi_losses(
        self,
        maps: Sequence[Tensor],
        proposals: Proposals,
        targets: Targets,
        truth: GroundTruth,
        draw: DrawUniform,
    ) -> dict[str, Tensor]:
        """{"loss_cls_0", "loss_box_0", "loss_mask_0", ..._1, ..._2}, weighted by stage; with masks off none
        of masks."""
        return self.stage_losses(partial(self.pool, maps), proposals, truth, draw)

    def stage_losses(
        self, read: ReadRoIs, proposals: Proposals, truth: GroundTruth, draw: DrawUniform
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for number, stage in enumerate(STAGES):
            box_head = self.box_head_of(number)
            rois = self.sample(stage, proposals, truth, draw)
            logits_RK, deltas_RB4 = box_head(read(*flat_rois(rois.boxes_NS4), BOX_CELLS))
            terms = box_head.losses(logits_RK, deltas_RB4, rois, truth)
            proposals = _refined_proposals(box_head, logits_RK, deltas_RB4, rois, truth)
            if self.settings.masks:
                mask_rois = self.choose_mask_rois(stage, rois, proposals, truth, draw)
                terms["loss_mask"] = self._mask_loss(number, read, mask_rois, truth)
            losses |= {f"{name}_{number}": stage.weight * loss for name, loss in terms.items()}
        return losses

    def sample(self, stage: Stage, proposals: Proposals, truth: GroundTruth, draw: DrawUniform) -> RoISamples:
        rule = AssignRule(positive_iou=stage.iou, negative_iou=stage.iou, rescue_iou=None)
        return sample_rois(proposals, truth, rule, self.settings.roi_samples, draw)

    def choose_mask_rois(
        self, stage: Stage, rois: RoISamples, refined: Proposals, truth: GroundTruth, draw: DrawUniform
    ) -> RoISamples:
        """RoIs for the loss of a stage's mask head: those of its box head."""
        return rois

    def mask_features(self, pooled_RCyx: Tensor, stages: int) -> list[Tensor]:
        """Features of each of the first `stages` mask heads."""
        return [self.mask_head_of(stage).features(pooled_RCyx) for stage in range(stages)]

    def last_mask_features(self, pooled_RCyx: Tensor, stages: int) -> Tensor:
        """Features of the last of them."""
        return self.mask_head_of(stages - 1).features(pooled_RCyx)

    def box_head_of(self, stage: int) -> BoxHead:
        head = self.box_heads[stage]
        assert isinstance(head, BoxHead)
        return head

    def mask_head_of(self, stage: int) -> MaskHead:
        head = self.mask_heads[stage]
        assert isinstance(head, MaskHead)
        return head

    def detect(
        self, maps: Sequence[Tensor], proposals: Proposals, image_hw_N2: Tensor
    ) -> tuple[list[Detections], list[Tensor] | None]:
        """Each stage scores the boxes the one before refined; the scores' logits are averaged (mmdet:models/
        roi_heads/cascade_roi_head.py)."""
        return self.stage_detections(partial(self.pool, maps), proposals, image_hw_N2)

    def stage_detections(
        self, read: ReadRoIs, proposals: Proposals, image_hw_N2: Tensor
    ) -> tuple[list[Detections], list[Tensor] | None]:
        boxes_NP4, (images, boxes) = proposals.boxes_NP4, proposals.exists_NP.shape
        stage_logits = []
        for stage in range(len(STAGES)):
            box_head = self.box_head_of(stage)
            logits_RK, deltas_RB4 = box_head(read(*flat_rois(boxes_NP4), BOX_CELLS))
            stage_logits.append(logits_RK)
            given_NP4 = boxes_NP4
            boxes_NP4 = _refine(box_head, deltas_RB4, given_NP4, box_head.likeliest(logits_RK), image_hw_N2)
        # The last stage's boxes, one for each class unless it is class-agnostic.
        refined_RB4 = box_head.decode(deltas_RB4, given_NP4.flatten(0, 1))
        clipped_NJ4 = clip_boxes(refined_RB4.view(images, -1, 4), image_hw_N2)
        probabilities_RK = box_head.probabilities(torch.stack(stage_logits).mean(0))
        probabilities_NPK = probabilities_RK.view(images, boxes, -1) * proposals.exists_NP[..., None]
        found = [
            detect(boxes_PB4, probabilities_PK, self.detect_rule)
            for boxes_PB4, probabilities_PK in zip(
                clipped_NJ4.view(images, boxes, -1, 4), probabilities_NPK, strict=True
            )
        ]
        if not self.settings.masks:
            return found, None
        boxes_D4, image_D, label_D = rois_of_detections(found)
        features = self.mask_features(read(boxes_D4, image_D, MASK_CELLS), len(STAGES))
        masks = [
            self.mask_head_of(stage).logits(features_DCyx, label_D + self.first_class).sigmoid()
            for stage, features_DCyx in enumerate(features)
        ]
        return found, split_by_image(torch.stack(masks).mean(0), found)

    def _mask_loss(self, stage: int, read: ReadRoIs, rois: RoISamples, truth: GroundTruth) -> Tensor:
        positive = positive_rois(rois, truth)
        pooled_RCyx = read(positive.boxes_R4, positive.image_R, MASK_CELLS)
        features_RCyx = self.last_mask_features(pooled_RCyx, stage + 1)
        logits_RMM = self.mask_head_of(stage).logits(features_RCyx, positive.label_R + self.first_class)
        return mask_loss(logits_RMM, mask_targets(positive, truth, self.conventions), positive.counts_R)


@torch.no_grad()
def _refined_proposals(
    head: BoxHead, logits_RK: Tensor, deltas_RB4: Tensor, rois: RoISamples, truth: GroundTruth
) -> Proposals:
    """The next stage's proposals, without ground-truth boxes, which that stage adds again.

    A RoI moves by the deltas of its object's class, on background by those of the best class.
    """
    own_R = truth.labels_NG.gather(1, rois.match_NS).flatten()
    label_R = torch.where(rois.positive_NS.flatten(), own_R, head.likeliest(logits_RK))
    boxes_NS4 = _refine(head, deltas_RB4, rois.boxes_NS4, label_R, truth.image_hw_N2)
    exists_NS = rois.valid_NS & ~rois.is_truth_NS
    return Proposals(boxes_NP4=boxes_NS4 * exists_NS[..., None], exists_NP=exists_NS)


def _refine(
    head: BoxHead, deltas_RB4: Tensor, boxes_NP4: Tensor, label_R: Tensor, image_hw_N2: Tensor
) -> Tensor:
    refined_R4 = head.refine(deltas_RB4, boxes_NP4.flatten(0, 1), label_R)
    return clip_boxes(refined_R4.view_as(boxes_NP4), image_hw_N2)


_LEVELS = ("p2", "p3", "p4", "p5")
HEADS = {
    "cascade-simplefpn": HeadPreset(
        task="detection",
        levels=(),
        settings=CascadeSettings(neck="simple", input_norm="none"),
        build=on_plain(OfLastBlock, Cascade),
        choose=last_block,
    ),
    **{
        f"cascade-{suffix}": HeadPreset(
            task="detection",
            levels=_LEVELS,
            settings=CascadeSettings(neck=neck, neck_depth=depth),
            build=Cascade,
            translate=translate_neck_settings,
        )
        for suffix, neck, depth in (("fpn", "fpn", 1), ("bifpn5", "bifpn", 5))
    },
}
