"""Convolution, norm, ReLU: the block of segmentation heads and of box heads with convolutions."""

from __future__ import annotations

import math

from torch import Tensor, nn

from heads.contract import check_choice

CONV_NORMS = ("bn", "gn", "none")


class ConvBlock(nn.Module):
    """Same-size convolution -> norm -> ReLU; the convolution has a bias only without a norm.

    Maps (N, inputs, y, x) -> (N, outputs, y, x). Initialised as mmcv's ConvModule: Kaiming-normal over the
    outgoing edges.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: str) -> None:
        super().__init__()
        check_choice("norm", norm, CONV_NORMS)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=norm == "none")
        self.norm = build_norm(norm, outputs)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x_NCYX: Tensor) -> Tensor:
        y_NCYX: Tensor = self.norm(self.conv(x_NCYX))
        return y_NCYX.relu_()


def build_norm(norm: str, channels: int) -> nn.Module:
    """BatchNorm ("bn"), GroupNorm ("gn") or nothing ("none") over (N, channels, y, x).

    GroupNorm has the papers' 32 groups, fewer where a group would have less than four channels: groups of
    one or two erase almost all of a 1x1 map.
    """
    if norm == "bn":
        return nn.BatchNorm2d(channels)
    if norm == "gn":
        groups = math.gcd(32, channels)
        while groups > 1 and channels // groups < 4:
            groups //= 2
        return nn.GroupNorm(groups, channels)
    return nn.Identity()
