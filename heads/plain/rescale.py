"""Pyramids of strides s/4, s/2, s and 2s from maps of a plain ViT, whose blocks all have stride s.

Two ways: ViTDet's, from the last block alone (detectron2:modeling/backbone/vit.py, SimpleFeaturePyramid, as
far as its 1x1 and 3x3 convolutions, which are heads/necks/simple.py), and feature2pyramid, from four blocks
(mmseg:models/necks/featurepyramid.py, as BEiT's and MAE's UPerNet has it). Deviations: GroupNorm of one group
in place of feature2pyramid's SyncBatchNorm, and a trainable LayerNorm first on raw levels. A map of an odd
number of cells is padded before it is halved, so that its last cells stay.

Letters in tensor names: N images, C channels, y and x cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from heads.contract import Head
from heads.necks.input_norm import ChannelNorm
from heads.plain.blocks import is_normed
from stores.pyramid import Level, PyramidSpec

_NAMES = ("p2", "p3", "p4", "p5")
_LN_EPS = 1e-6  # ViTDet's


class RescaledLevels(nn.Module):
    """Maps of a plain ViT in, maps of a pyramid out.

    `pyramid` holds the levels made: p2..p5, finest first, of a quarter, a half, one and two source strides
    (3.5, 7, 14 and 28 px of a stride of 14).
    """

    pyramid: PyramidSpec

    def __init__(self, source: PyramidSpec, channels: Sequence[int]) -> None:
        """Args: channels: of the levels made, finest first."""
        super().__init__()
        (stride_px,) = {level.stride_px for level in source}
        scales = zip(_NAMES, (stride_px / 4, stride_px / 2, stride_px, 2 * stride_px), channels, strict=True)
        self.pyramid = PyramidSpec(
            tuple(
                Level(name=name, stride_px=stride, channels=width, stage=stage)
                for stage, (name, stride, width) in enumerate(scales, start=1)
            )
        )
        self.input_norms = nn.ModuleList(
            nn.Identity() if is_normed(level.name) else ChannelNorm(level.channels) for level in source
        )

    def normed(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The source maps, raw ones after their trainable norm."""
        return [norm(x_NCyx) for norm, x_NCyx in zip(self.input_norms, maps, strict=True)]


class OfLastBlock(RescaledLevels):
    """ViTDet: of one map of C channels, maps of C/4, C/2, C and C channels."""

    def __init__(self, source: PyramidSpec) -> None:
        (level,) = source
        width = level.channels
        super().__init__(source, (width // 4, width // 2, width, width))
        self.four_times = nn.Sequential(
            nn.ConvTranspose2d(width, width // 2, 2, 2),
            ChannelNorm(width // 2, eps=_LN_EPS),
            nn.GELU(),
            nn.ConvTranspose2d(width // 2, width // 4, 2, 2),
        )
        self.twice = nn.ConvTranspose2d(width, width // 2, 2, 2)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[(N, C, y, x)] -> p2..p5 of 4y, 2y, y and ceil(y / 2) cells."""
        (x_NCyx,) = self.normed(maps)
        return [self.four_times(x_NCyx), self.twice(x_NCyx), x_NCyx, _halved(x_NCyx)]


class OfFourBlocks(RescaledLevels):
    """feature2pyramid: each of four maps on a scale of its own, the first block's the finest."""

    def __init__(self, source: PyramidSpec) -> None:
        first, second, *_ = channels = [level.channels for level in source]
        super().__init__(source, channels)
        self.four_times = nn.Sequential(
            nn.ConvTranspose2d(first, first, 2, 2),
            nn.GroupNorm(1, first),
            nn.GELU(),
            nn.ConvTranspose2d(first, first, 2, 2),
        )
        self.twice = nn.ConvTranspose2d(second, second, 2, 2)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (N, C, y, x) -> p2..p5 of 4y, 2y, y and ceil(y / 2) cells."""
        first, second, third, fourth = self.normed(maps)
        return [self.four_times(first), self.twice(second), third, _halved(fourth)]


def _halved(x_NCyx: Tensor) -> Tensor:
    return F.max_pool2d(x_NCyx, 2, ceil_mode=True)


def on_plain(
    rescale: Callable[[PyramidSpec], RescaledLevels], build: Callable[[PyramidSpec, int, Any], Head]
) -> Callable[[PyramidSpec, int, Any], Head]:
    """A head of p2..p5 built on the rescaled maps of a plain ViT: `HeadPreset.build`."""

    def build_on_rescaled(source: PyramidSpec, num_classes: int, settings: Any) -> Head:
        rescaled = rescale(source)
        head = build(rescaled.pyramid, num_classes, settings)
        head.read_through(rescaled, source)
        return head

    return build_on_rescaled
