"""FPN with residual blocks: the neck that the frozen-backbone paper compares with BiFPN at equal size.

The paper (Lin et al., NeurIPS 2022, table 5) gives its name only. Here the blocks stand between each merged
lateral and its output convolution; four blocks on four levels have exactly as many parameters as four BiFPN
layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from heads.necks.contract import Neck
from heads.necks.conv_block import build_norm
from heads.necks.fpn import FPN


class ResidualBlock(nn.Module):
    """3x3 -> norm -> ReLU -> 3x3 -> norm, added to its input, ReLU.

    The second norm (without norms the second convolution) starts at 0, so that the block starts as a ReLU.
    """

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = build_norm(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = build_norm(norm, width)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        last = self.conv2 if norm == "none" else self.norm2
        assert isinstance(last.weight, nn.Parameter)
        nn.init.zeros_(last.weight)

    def forward(self, x_NCYX: Tensor) -> Tensor:
        y_NCYX = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x_NCYX)))))
        return F.relu(x_NCYX + y_NCYX)


class ResidualFPN(FPN):
    """FPN with `blocks` residual blocks on each merged lateral; maps as FPN's.

    Args:
        norm: of the blocks, "gn" or "none".
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        width: int = 256,
        *,
        blocks: int,
        norm: str = "gn",
        extra_levels: int = 1,
    ) -> None:
        super().__init__(in_channels, width, extra_levels=extra_levels)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width, norm) for _ in range(blocks))) for _ in in_channels
        )

    def refine(self, merged: list[Tensor]) -> list[Tensor]:
        return [block(x_NCYX) for block, x_NCYX in zip(self.blocks, merged, strict=True)]


def _build(
    in_channels: Sequence[int], width: int, *, depth: int, extra_levels: int, norm: str
) -> ResidualFPN:
    return ResidualFPN(in_channels, width, blocks=depth, norm=norm, extra_levels=extra_levels)


NECKS = {"fpn-res": Neck(build=_build, max_depth=16, compiles=False)}
