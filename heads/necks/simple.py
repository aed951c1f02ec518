"""ViTDet's neck: a 1x1 and a 3x3 convolution on each level, LayerNorm after both, nothing between levels.

Behind the rescaled maps of heads/plain/rescale.py it is the simple feature pyramid
(detectron2:modeling/backbone/vit.py, SimpleFeaturePyramid and LastLevelMaxPool).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from heads.necks.contract import Neck
from heads.necks.input_norm import ChannelNorm

_LN_EPS = 1e-6


class SimpleNeck(nn.Module):
    """Maps (N, in_channels[i], y_i, x_i), finest first -> (N, width, y_i, x_i) and the extra levels."""

    def __init__(self, in_channels: Sequence[int], width: int = 256, *, extra_levels: int = 1) -> None:
        super().__init__()
        self.extra_levels = extra_levels
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, 1, bias=False),
                ChannelNorm(width, eps=_LN_EPS),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                ChannelNorm(width, eps=_LN_EPS),
            )
            for channels in in_channels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        pyramid: list[Tensor] = [level(x_NCyx) for level, x_NCyx in zip(self.levels, maps, strict=True)]
        for _ in range(self.extra_levels):
            pyramid.append(F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))
        return pyramid


def _build(in_channels: Sequence[int], width: int, *, depth: int, extra_levels: int, norm: str) -> SimpleNeck:
    return SimpleNeck(in_channels, width, extra_levels=extra_levels)


NECKS = {"simple": Neck(build=_build, max_depth=1, compiles=False)}
