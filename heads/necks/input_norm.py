"""The trainable norm between a frozen backbone's raw stage outputs and a head.

SwinV2 normalises its branches, never the main path, so raw outputs grow from stage to stage. Detection and
segmentation Swin add one newly initialised LayerNorm per output stage (Swin-Transformer-Object-Detection:
mmdet/models/backbones/swin_transformer.py, norm0..norm3); over cached features it belongs to the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.contract import check_choice

INPUT_NORMS = ("ln", "ln_no_affine", "none")


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each cell, in fp32 also under autocast.

    Maps (N, channels, ..., y, x) -> the same shape, float32. With channels last in memory both moves are
    views.
    """

    def __init__(self, channels: int, *, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x_NCYX: Tensor) -> Tensor:
        with torch.autocast(x_NCYX.device.type, enabled=False):
            x_NYXC = x_NCYX.float().movedim(1, -1)
            return F.layer_norm(x_NYXC, (self.channels,), self.weight, self.bias, self.eps).movedim(-1, 1)


def build_input_norms(kind: str, channels: Sequence[int]) -> nn.ModuleList:
    """One norm a level: "ln" (weight and bias), "ln_no_affine" or "none"; HeadError for another."""
    check_choice("input_norm", kind, INPUT_NORMS)
    if kind == "none":
        return nn.ModuleList(nn.Identity() for _ in channels)
    return nn.ModuleList(ChannelNorm(width, affine=kind == "ln") for width in channels)
