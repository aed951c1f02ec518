"""The linear head: a norm per level, all levels resized to the finest, one 1x1 convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.contract import Features, HeadPreset, SizeYX, check_choice, check_probability
from heads.necks.channel_dropout import drop_channels
from heads.necks.input_norm import INPUT_NORMS, build_input_norms
from heads.segmentation.base import PixelClassifier, build_classifier
from stores.pyramid import PyramidSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearSettings:
    """Raises HeadError for a value out of range."""

    input_norm: str = "ln"
    """Norm per level over the channels: ln | ln_no_affine | none."""
    dropout: float = 0.0
    """Probability of dropping a channel before the classifier, 0..0.9."""

    def __post_init__(self) -> None:
        check_choice("input_norm", self.input_norm, INPUT_NORMS)
        check_probability("dropout", self.dropout)


class LinearHead(PixelClassifier):
    """1x1 convolution of all levels, resized bilinearly to the finest and concatenated."""

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: LinearSettings) -> None:
        super().__init__(pyramid, num_classes)
        self.dropout = settings.dropout
        channels = [level.channels for level in pyramid]
        self.input_norms = build_input_norms(settings.input_norm, channels)
        self.classifier = build_classifier(sum(channels), num_classes)

    def forward(
        self, features: Features, valid_hw: Sequence[SizeYX], generator: torch.Generator | None = None
    ) -> Tensor:
        maps = self.select_maps(features, valid_hw)
        grid = maps[0].shape[2:]
        weights = torch.split(self.classifier.weight, [level.channels for level in self.pyramid], dim=1)
        scores_NKYX: Tensor | None = None
        # Resizing and a 1x1 convolution commute (both are linear, one acts on cells, the other on
        # channels), so each level is classified on its own small grid and only its scores are resized.
        for norm, x_NCyx, weight in zip(self.input_norms, maps, weights, strict=True):
            x_NCyx = norm(x_NCyx)
            if self.training:
                x_NCyx = drop_channels(x_NCyx, self.dropout, generator)
            if scores_NKYX is None:
                scores_NKYX = F.conv2d(x_NCyx, weight, self.classifier.bias)
            else:
                part_NKyx = F.conv2d(x_NCyx, weight)
                scores_NKYX = scores_NKYX + F.interpolate(
                    part_NKyx, size=grid, mode="bilinear", align_corners=False
                )
        assert scores_NKYX is not None
        return scores_NKYX


HEADS = {
    "linear": HeadPreset(
        task="segmentation", levels=("p2", "p3", "p4", "p5"), settings=LinearSettings(), build=LinearHead
    )
}
