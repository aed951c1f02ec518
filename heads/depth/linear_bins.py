"""Linear depth of DINOv2: one 1x1 convolution to 256 bins of depth, on the maps and the class tokens.

Source: dinov2@d5c376b dinov2/eval/depth/models/decode_heads/linear_head.py (BNHead, whose norm is commented
out) and decode_head.py: maps, and class tokens as constant maps, resized bilinearly to four times the first
map's cells and concatenated; 256 numbers a cell, ReLU + 0.1, divided by their sum; depth is their mean over
depths spaced evenly from 1 mm to max_depth. Its losses: heads/depth/silog.py. Raw levels have a trainable
LayerNorm first, where DINOv2's are behind the backbone's own.

Letters in tensor names: N images, C channels, y x cells, Y X pixels, K bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.contract import Features, HeadPreset, SizeYX, Targets, ValidSizes, check_int
from heads.depth.base import DepthHead, DepthSettings, padded_size
from heads.depth.silog import dinov2_depth_loss, gradient_loss
from heads.errors import HeadError
from heads.last_map import require_last_map
from heads.necks.input_norm import ChannelNorm
from heads.plain.blocks import block_maps
from stores.pyramid import PyramidSpec

_FLOOR = 0.1
"""Added to each bin before they are divided by their sum."""
_GRADIENT_WEIGHT = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearBinsSettings(DepthSettings):
    """DINOv2's linear depth."""

    bins: int = 256
    """Depths, spaced evenly."""
    upsample: int = 4
    """Cells along an axis for each of the map's, before the convolution."""
    warm_up_steps: int = 100
    """First steps in which the loss is that of the mean alone."""

    def __post_init__(self) -> None:
        DepthSettings.__post_init__(self)  # not super(): slots make a new class of this one
        check_int("bins", self.bins, 2, 4096)
        check_int("upsample", self.upsample, 1, 32)
        check_int("warm_up_steps", self.warm_up_steps, 0, 1 << 20)


class LinearBins(DepthHead):
    """See the module."""

    steps_done: Tensor

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: LinearBinsSettings) -> None:
        super().__init__(pyramid, num_classes, settings)
        self.settings = settings
        self.input_norms = nn.ModuleList(
            nn.Identity() if level.name.endswith("n") else ChannelNorm(level.channels) for level in pyramid
        )
        self.classifier = nn.Conv2d(sum(level.channels for level in pyramid), settings.bins, 1)
        depths_K = torch.linspace(settings.min_depth_m, settings.max_depth_m, settings.bins)
        self.register_buffer("depths_K", depths_K, persistent=False)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Features, valid_hw: ValidSizes) -> Tensor:
        """Metres, float32 (N, Y, X)."""
        maps = self.select_maps(features, valid_hw)
        shown = [
            (level, norm(x_NCyx))
            for level, norm, x_NCyx in zip(self.pyramid, self.input_norms, maps, strict=True)
        ]
        first, first_NCyx = next((level, x) for level, x in shown if not level.is_pooled)
        fine = [side * self.settings.upsample for side in first_NCyx.shape[-2:]]
        # The same numbers as of the concatenated maps, a part of the kernel at a time.
        parts = torch.split(self.classifier.weight, [level.channels for level, _ in shown], dim=1)
        assert self.classifier.bias is not None
        bins_NKyx: Tensor = self.classifier.bias[None, :, None, None]
        for (level, x_NCyx), kernel in zip(shown, parts, strict=True):
            part = F.conv2d(x_NCyx, kernel)
            if not level.is_pooled:
                part = F.interpolate(part, size=fine, mode="bilinear", align_corners=False)
            bins_NKyx = bins_NKyx + part
        weights_NKyx = bins_NKyx.float().relu() + _FLOOR
        weights_NKyx = weights_NKyx / weights_NKyx.sum(1, keepdim=True)
        depth_N1yx = torch.einsum("nkyx,k->nyx", weights_NKyx, self.depths_K.float())[:, None]
        size = padded_size(first_NCyx, first.stride_px)
        return F.interpolate(depth_N1yx, size=size, mode="bilinear", align_corners=False)[:, 0]

    def losses(
        self,
        features: Features,
        targets: Targets,
        valid_hw: Sequence[SizeYX],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """{"loss_depth", "loss_gradient"}: DINOv2's two terms, weighted."""
        predicted_NYX, truth_NYX = self._both(features, targets, valid_hw)
        limit = self.depth_settings.max_depth_m
        warming_up = self.steps_done < self.settings.warm_up_steps
        found = {
            "loss_depth": dinov2_depth_loss(predicted_NYX, truth_NYX, limit, warming_up),
            "loss_gradient": _GRADIENT_WEIGHT * gradient_loss(predicted_NYX, truth_NYX, limit),
        }
        if self.training:
            self.steps_done += 1
        return found


def _levels(pyramid: PyramidSpec, settings: object) -> tuple[str, ...]:
    """All maps of a plain ViT's blocks and the class tokens that are there; of another backbone its last map.

    Raises HeadError without a map.
    """
    blocks = {level.name for level in block_maps(pyramid)}
    tokens = {level.name for level in pyramid if level.name.startswith("cls")} if blocks else set[str]()
    chosen = tuple(level.name for level in pyramid if level.name in blocks | tokens)
    if not chosen:
        return require_last_map(pyramid, settings)
    if len({level.stride_px for level in pyramid if level.name in blocks}) > 1:
        raise HeadError(f"reads maps of one stride, found {', '.join(chosen)}")
    return chosen


HEADS = {
    "depth-linear": HeadPreset(
        task="depth",
        levels=(),
        settings=LinearBinsSettings(),
        build=LinearBins,
        has_classes=False,
        choose=_levels,
    ),
}
