"""The feature pyramid network P2-P6 (Swin-Transformer-Object-Detection:mmdet/models/necks/fpn.py)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Lateral 1x1, nearest top-down sum, 3x3 on each level, and one coarser level by subsampling the last.

    Args:
        in_channels: channels of the input maps, finest first.
        width: channels of every output map.
    """

    def __init__(self, in_channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in in_channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in in_channels)
        for conv in (*self.laterals, *self.outputs):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, in_channels[i], y_i, x_i), finest first -> one map more, each of `width` channels.

        The last has ceil(y / 2) x ceil(x / 2) cells of the coarsest given.
        """
        merged = [lateral(x_NCYX) for lateral, x_NCYX in zip(self.laterals, maps, strict=True)]
        for fine in range(len(merged) - 2, -1, -1):
            # To the finer map's size, not by a factor of two: sizes are odd where the image does not divide.
            merged[fine] = merged[fine] + F.interpolate(
                merged[fine + 1], size=merged[fine].shape[2:], mode="nearest"
            )
        refined = self.refine(merged)
        pyramid: list[Tensor] = [conv(x_NCYX) for conv, x_NCYX in zip(self.outputs, refined, strict=True)]
        return [*pyramid, F.max_pool2d(pyramid[-1], kernel_size=1, stride=2)]

    def refine(self, merged: list[Tensor]) -> list[Tensor]:
        """What happens to the merged laterals before the output convolutions: nothing."""
        return merged
