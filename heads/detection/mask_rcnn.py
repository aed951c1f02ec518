"""Mask R-CNN over a frozen pyramid, with an FPN, an FPN with residual blocks or one to nine BiFPN layers.

All of it follows mmdet's conventions (Swin-Transformer-Object-Detection:configs/_base_/models/
mask_rcnn_swin_fpn.py); `conventions: torchvision` follows torchvision's, for comparisons. Targets are
documented in heads/boxes/ground_truth.py, predictions at DetectionHead.predict in heads/detection/base.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from heads.boxes.assignment import DrawUniform
from heads.boxes.boxes import clip_boxes
from heads.boxes.ground_truth import GroundTruth
from heads.boxes.postprocess import Detections, detect
from heads.boxes.roi_align import flat_rois
from heads.contract import HeadPreset, Targets
from heads.detection.base import DetectionHead, DetectionSettings
from heads.detection.box_head import BOX_CELLS, BoxHead
from heads.detection.mask_branch import mask_targets, positive_rois, rois_of_detections, split_by_image
from heads.detection.mask_head import MASK_CELLS, MaskHead, mask_loss
from heads.detection.roi_sampling import RoISamples, sample_rois
from heads.detection.rpn import Proposals
from heads.necks.former_settings import translate_neck_settings
from heads.plain.blocks import last_block
from heads.plain.rescale import OfLastBlock, on_plain
from stores.pyramid import PyramidSpec

BOX_STDS = (0.1, 0.1, 0.2, 0.2)


class MaskRCNN(DetectionHead):
    """One box head and one mask head on the proposals; `mask_head` is None with masks off (Faster R-CNN)."""

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: DetectionSettings) -> None:
        super().__init__(pyramid, num_classes, settings)
        self.box_head = BoxHead(
            settings.width,
            settings.box_width,
            num_classes,
            stds=BOX_STDS,
            beta=self.conventions.box_beta,
            background_first=self.conventions.background_first,
        )
        self.mask_head = (
            MaskHead(settings.width, settings.mask_width, num_classes + self.box_head.first_class)
            if settings.masks
            else None
        )

    def roi_losses(
        self,
        maps: Sequence[Tensor],
        proposals: Proposals,
        targets: Targets,
        truth: GroundTruth,
        draw: DrawUniform,
    ) -> dict[str, Tensor]:
        """{"loss_cls", "loss_box", "loss_mask"}, the last with masks on."""
        rois = sample_rois(proposals, truth, self.conventions.roi_rule, self.settings.roi_samples, draw)
        logits_RK, deltas_RB4 = self.box_head(self.pool(maps, *flat_rois(rois.boxes_NS4), BOX_CELLS))
        losses = self.box_head.losses(logits_RK, deltas_RB4, rois, truth)
        if self.mask_head is None:
            return losses
        return {**losses, "loss_mask": self._mask_loss(self.mask_head, maps, rois, truth)}

    def detect(
        self, maps: Sequence[Tensor], proposals: Proposals, image_hw_N2: Tensor
    ) -> tuple[list[Detections], list[Tensor] | None]:
        images = len(image_hw_N2)
        logits_RK, deltas_RB4 = self.box_head(self.pool(maps, *flat_rois(proposals.boxes_NP4), BOX_CELLS))
        probabilities_NPK = self.box_head.probabilities(logits_RK).view(images, -1, self.num_classes)
        probabilities_NPK = probabilities_NPK * proposals.exists_NP[..., None]
        boxes_RB4 = self.box_head.decode(deltas_RB4, proposals.boxes_NP4.flatten(0, 1))
        boxes_NPB4 = boxes_RB4.view(images, -1, *boxes_RB4.shape[1:])
        found = []
        for row in range(images):
            clipped_PB4 = clip_boxes(boxes_NPB4[row], image_hw_N2[row, None])
            found.append(detect(clipped_PB4, probabilities_NPK[row], self.detect_rule))
        if self.mask_head is None:
            return found, None
        boxes_D4, image_D, label_D = rois_of_detections(found)
        pooled_DCyx = self.pool(maps, boxes_D4, image_D, MASK_CELLS)
        logits_DMM = self.mask_head(pooled_DCyx, label_D + self.box_head.first_class)
        return found, split_by_image(logits_DMM.sigmoid(), found)

    def _mask_loss(
        self, mask_head: MaskHead, maps: Sequence[Tensor], rois: RoISamples, truth: GroundTruth
    ) -> Tensor:
        positive = positive_rois(rois, truth)
        pooled_RCyx = self.pool(maps, positive.boxes_R4, positive.image_R, MASK_CELLS)
        logits_RMM = mask_head(pooled_RCyx, positive.label_R + self.box_head.first_class)
        return mask_loss(logits_RMM, mask_targets(positive, truth, self.conventions), positive.counts_R)


_LEVELS = ("p2", "p3", "p4", "p5")


def _preset(neck: str, depth: int = 1) -> HeadPreset:
    return HeadPreset(
        task="detection",
        levels=_LEVELS,
        settings=DetectionSettings(neck=neck, neck_depth=depth),
        build=MaskRCNN,
        translate=translate_neck_settings,
    )


HEADS = {
    "fpn": _preset("fpn"),
    "simplefpn": HeadPreset(  # ViTDet
        task="detection",
        levels=(),
        settings=DetectionSettings(neck="simple", input_norm="none"),
        build=on_plain(OfLastBlock, MaskRCNN),
        choose=last_block,
    ),
    "fpn-res4": _preset("fpn-res", 4),
    **{f"bifpn{layers}": _preset("bifpn", layers) for layers in range(1, 10)},
}
