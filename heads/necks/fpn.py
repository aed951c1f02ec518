"""The feature pyramid network P2-P6 (Swin-Transformer-Object-Detection:mmdet/models/necks/fpn.py)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from heads.necks.contract import Neck


class FPN(nn.Module):
    """Lateral 1x1, nearest top-down sum, 3x3 on each level, and coarser levels by subsampling the last.

    Args:
        in_channels: channels of the input maps, finest first.
        width: channels of every output map.
        extra_levels: coarser levels to add: 1 turns P2-P5 into P2-P6.
    """

    def __init__(self, in_channels: Sequence[int], width: int = 256, *, extra_levels: int = 1) -> None:
        super().__init__()
        self.extra_levels = extra_levels
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in in_channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in in_channels)
        for conv in (*self.laterals, *self.outputs):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, in_channels[i], y_i, x_i), finest first -> (N, width, y_i, x_i) and the extra levels.

        An extra level has ceil(y / 2) x ceil(x / 2) cells of the one before it.
        """
        merged = [lateral(x_NCYX) for lateral, x_NCYX in zip(self.laterals, maps, strict=True)]
        for fine in range(len(merged) - 2, -1, -1):
            # To the finer map's size, not by a factor of two: sizes are odd where the image does not divide.
            merged[fine] = merged[fine] + F.interpolate(
                merged[fine + 1], size=merged[fine].shape[2:], mode="nearest"
            )
        refined = self.refine(merged)
        pyramid: list[Tensor] = [conv(x_NCYX) for conv, x_NCYX in zip(self.outputs, refined, strict=True)]
        for _ in range(self.extra_levels):
            pyramid.append(F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))
        return pyramid

    def refine(self, merged: list[Tensor]) -> list[Tensor]:
        """The merged laterals as the output convolutions read them: here unchanged."""
        return merged


def _build(in_channels: Sequence[int], width: int, *, depth: int, extra_levels: int, norm: str) -> FPN:
    return FPN(in_channels, width, extra_levels=extra_levels)


NECKS = {"fpn": Neck(build=_build, max_depth=1, compiles=False)}
