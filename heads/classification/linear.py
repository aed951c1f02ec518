"""Linear probes: one linear layer on pooled features, optionally behind a batch norm without parameters.

The protocols of MAE (facebookresearch/mae@efb2a80 main_linprobe.py: BatchNorm1d without affine, eps 1e-6),
DINO (dino@7c446df eval_linear.py) and DINOv2 (dinov2@b8931f7 dinov2/eval/linear.py: class tokens of the last
blocks, with or without the mean of the last block's patch tokens). Letters in tensor names: N images, C
channels, y x cells, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heads.class_scores import RowClassHead
from heads.classification.feature_levels import FEATURES, probe_levels
from heads.contract import (
    Features,
    HeadPreset,
    SizeYX,
    check_choice,
    check_int,
    check_probability,
    valid_cells,
)
from heads.errors import HeadError
from heads.necks.channel_dropout import drop_channels
from stores.pyramid import PyramidSpec

INPUT_NORMS = ("bn_no_affine", "none")
_EPS = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeSettings:
    """Raises HeadError for a value out of range."""

    feature: str = "auto"
    """What is classified: cls | avg | cls+avg | pooled | map (the mean of the last map); auto: the first of
    cls, avg, pooled and map that the store holds."""
    blocks: int = 1
    """Class tokens of so many last blocks are concatenated, 1..48."""
    input_norm: str = "bn_no_affine"
    """Norm of the features: bn_no_affine (batch norm without parameters, as MAE) | none."""
    dropout: float = 0.0
    """Probability of dropping a channel before the classifier, 0..0.9."""

    def __post_init__(self) -> None:
        check_choice("feature", self.feature, FEATURES)
        check_int("blocks", self.blocks, 1, 48)
        check_choice("input_norm", self.input_norm, INPUT_NORMS)
        check_probability("dropout", self.dropout)


class LinearProbe(RowClassHead):
    """The mean of each level's valid cells, concatenated, then one linear layer."""

    task = "classification"

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: ProbeSettings) -> None:
        super().__init__(pyramid, num_classes)
        self.dropout = settings.dropout
        width = sum(level.channels for level in pyramid)
        is_normed = settings.input_norm == "bn_no_affine"
        self.norm = nn.BatchNorm1d(width, affine=False, eps=_EPS) if is_normed else nn.Identity()
        self.classifier = nn.Linear(width, num_classes)
        # MAE cuts its normal at 2, which is 200 deviations: all three protocols begin alike.
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    @property
    def target_names(self) -> tuple[str, ...]:
        return ("label",)

    def pooled(self, features: Features, valid_hw: Sequence[SizeYX]) -> Tensor:
        """float32 (N, sum of channels): each level's mean over its valid cells. Raises HeadError."""
        maps = self.select_maps(features, valid_hw)
        return torch.cat(
            [_mean(x_NCyx, valid_cells(lv, valid_hw)) for lv, x_NCyx in zip(self.pyramid, maps, strict=True)],
            dim=1,
        )

    def forward(
        self, features: Features, valid_hw: Sequence[SizeYX], generator: torch.Generator | None = None
    ) -> Tensor:
        """Class scores (N, num_classes)."""
        pooled_NC = self.pooled(features, valid_hw)
        if self.training and len(pooled_NC) == 1 and isinstance(self.norm, nn.BatchNorm1d):
            raise HeadError("a batch norm cannot learn from batches of one row; use a larger --batch-size")
        with torch.autocast(pooled_NC.device.type, enabled=False):
            pooled_NC = self.norm(pooled_NC)
        if self.training:
            pooled_NC = drop_channels(pooled_NC[..., None, None], self.dropout, generator)[..., 0, 0]
        scores_NK: Tensor = self.classifier(pooled_NC)
        return scores_NK


def _mean(x_NCyx: Tensor, cells: Sequence[SizeYX] | Tensor) -> Tensor:
    """(N, C) float32: the mean over the valid cells, at the upper left of each map."""
    if isinstance(cells, Tensor):
        return _masked_mean(x_NCyx, cells)
    if len(set(cells)) == 1:
        y, x = cells[0]
        return x_NCyx[..., :y, :x].mean((2, 3), dtype=torch.float32)
    return torch.stack(
        [
            x_CYX[..., :y, :x].mean((1, 2), dtype=torch.float32)
            for x_CYX, (y, x) in zip(x_NCyx, cells, strict=True)
        ]
    )


def _masked_mean(x_NCyx: Tensor, cells_N2: Tensor) -> Tensor:
    rows_Ny, columns_Nx = (
        torch.arange(size, device=x_NCyx.device) < cells_N2[:, axis, None]
        for axis, size in enumerate(x_NCyx.shape[2:])
    )
    valid_N1yx = (rows_Ny[:, :, None] & columns_Nx[:, None, :])[:, None]
    return torch.where(valid_N1yx, x_NCyx.float(), 0.0).sum((2, 3)) / valid_N1yx.sum((2, 3))


def _levels(pyramid: PyramidSpec, settings: ProbeSettings) -> tuple[str, ...]:
    return probe_levels(pyramid, settings.feature, settings.blocks)


_PRESETS = {
    "linear": ProbeSettings(),
    "linear-cls": ProbeSettings(feature="cls", input_norm="none"),
    "linear-cls4": ProbeSettings(feature="cls", blocks=4, input_norm="none"),
    "linear-cls-avg": ProbeSettings(feature="cls+avg", input_norm="none"),
    "linear-cls4-avg": ProbeSettings(feature="cls+avg", blocks=4, input_norm="none"),
}

NAMES = ("linear", "linear-cls", "linear-cls4", "linear-cls-avg", "linear-cls4-avg")

HEADS = {
    name: HeadPreset(
        task="classification", levels=(), choose=_levels, settings=_PRESETS[name], build=LinearProbe
    )
    for name in NAMES
}
"""Those with `cls` are DINO's and DINOv2's, the four features of the latter's grid."""
