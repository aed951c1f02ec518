"""Hybrid Task Cascade (Chen et al., CVPR 2019; mmdet:models/roi_heads/htc_roi_head.py).

A cascade whose mask heads train on the boxes that their stage has refined and pass features on to the next
mask head; a semantic branch, trained on stuff maps, adds its features to every RoI. htc-nosem-bifpn5 has no
semantic branch, for data without stuff maps.

Dims: R RoIs of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from heads.boxes.assignment import DrawUniform
from heads.boxes.ground_truth import GroundTruth
from heads.boxes.postprocess import Detections
from heads.contract import HeadPreset, Targets, check_bool, check_int
from heads.detection.cascade import Cascade, CascadeSettings, ReadRoIs, Stage
from heads.detection.mask_head import MASK_CELLS, MaskHead
from heads.detection.roi_sampling import RoISamples
from heads.detection.rpn import Proposals
from heads.detection.semantic_branch import STUFF, SemanticBranch, stuff_loss
from heads.necks.former_settings import translate_neck_settings
from stores.pyramid import PyramidSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class HTCSettings(CascadeSettings):
    """Raises HeadError for a value out of range."""

    semantic: bool = True
    """Semantic branch: trained on stuff maps (target "stuff"), its features are added to the RoIs'."""
    stuff_classes: int = 183
    """Classes of the stuff maps: COCO-stuff's. 1..255."""
    score_threshold: float = 0.001
    """Least score of a detection, exclusive, 0..0.9."""

    def __post_init__(self) -> None:
        CascadeSettings.__post_init__(self)
        check_bool("semantic", self.semantic)
        check_int("stuff_classes", self.stuff_classes, 1, 255)


class HTC(Cascade):
    """`semantic` is None without the semantic branch."""

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: HTCSettings) -> None:
        super().__init__(pyramid, num_classes, settings)
        self.semantic = (
            SemanticBranch(settings.width, len(pyramid) + 1, settings.stuff_classes)
            if settings.semantic
            else None
        )

    @property
    def target_names(self) -> tuple[str, ...]:
        return super().target_names if self.semantic is None else (*super().target_names, STUFF)

    def build_mask_head(self, stage: int) -> MaskHead:
        outputs = self.num_classes + self.first_class
        return MaskHead(self.settings.width, self.settings.mask_width, outputs, flow=stage > 0)

    def roi_losses(
        self,
        maps: Sequence[Tensor],
        proposals: Proposals,
        targets: Targets,
        truth: GroundTruth,
        draw: DrawUniform,
    ) -> dict[str, Tensor]:
        """The cascade's and, with the semantic branch, "loss_semantic"; `targets[i]["stuff"]` is uint8 (y, x)
        over the view's pixels, 255 = ignored."""
        read, scores_NKyx = self._reader(maps)
        losses = {}
        if scores_NKyx is not None:
            losses["loss_semantic"] = stuff_loss(scores_NKyx, targets, int(self.roi_strides_px[1]))
        return {**losses, **self.stage_losses(read, proposals, truth, draw)}

    def detect(
        self, maps: Sequence[Tensor], proposals: Proposals, image_hw_N2: Tensor
    ) -> tuple[list[Detections], list[Tensor] | None]:
        return self.stage_detections(self._reader(maps)[0], proposals, image_hw_N2)

    def choose_mask_rois(
        self, stage: Stage, rois: RoISamples, refined: Proposals, truth: GroundTruth, draw: DrawUniform
    ) -> RoISamples:
        """New samples from the boxes that this stage has refined."""
        return self.sample(stage, refined, truth, draw)

    def mask_features(self, pooled_RCyx: Tensor, stages: int) -> list[Tensor]:
        """Each head passes its features on to the next, all of them over the same RoIs."""
        features: list[Tensor] = []
        for stage in range(stages):
            before_RCyx = features[-1] if features else None
            features.append(self.mask_head_of(stage).features(pooled_RCyx, before_RCyx))
        return features

    def last_mask_features(self, pooled_RCyx: Tensor, stages: int) -> Tensor:
        return self.mask_features(pooled_RCyx, stages)[-1]

    def _reader(self, maps: Sequence[Tensor]) -> tuple[ReadRoIs, Tensor | None]:
        """The function that pools RoIs, and the semantic branch's scores."""
        if self.semantic is None:
            return lambda boxes_R4, image_R, cells: self.pool(maps, boxes_R4, image_R, cells), None
        scores_NKyx, semantic_NCyx = self.semantic(maps)
        semantic_NCyx = semantic_NCyx.float()

        def read(boxes_R4: Tensor, image_R: Tensor, cells: int) -> Tensor:
            rois_R5 = F.pad(boxes_R4, (1, 0))
            rois_R5[:, 0] = image_R
            stride_px = self.roi_strides_px[1]
            added_RCyx = roi_align(
                semantic_NCyx, rois_R5, MASK_CELLS, 1 / stride_px, 0, self.conventions.aligned
            )
            return self.pool(maps, boxes_R4, image_R, cells) + F.adaptive_avg_pool2d(added_RCyx, cells)

        return read, scores_NKyx


_LEVELS = ("p2", "p3", "p4", "p5")
HEADS = {
    name: HeadPreset(
        task="detection",
        levels=_LEVELS,
        settings=HTCSettings(neck="bifpn", neck_depth=5, semantic=semantic),
        build=HTC,
        translate=translate_neck_settings,
    )
    for name, semantic in (("htc-bifpn5", True), ("htc-nosem-bifpn5", False))
}
