"""Mask2Former's pixel decoder (Mask2Former:modeling/pixel_decoder/msdeformattn.py).

Levels run from coarse to fine, as in the reference; maps as cells are (N, y*x, C), in row order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.contract import SizeYX, check_choice
from heads.mask2former.deformable_attention import CellGrid, DeformableAttention
from heads.mask2former.position_encoding import sine_positions
from heads.necks.conv_block import build_norm

PIXEL_PRECISIONS = ("autocast", "fp32")
_FEEDFORWARD = 4  # times the width; the reference's 1024 for 256


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedPixels:
    """Outputs of a pixel decoder."""

    mask_features_NCYX: Tensor
    """On the finest level's grid; a query's mask is its product with them."""
    cells: tuple[Tensor, ...]
    """The other levels (N, y*x, C), coarse to fine."""
    positions: tuple[Tensor, ...]
    """Their sine codes (1, y*x, C)."""
    sizes: tuple[SizeYX, ...]
    """Their y and x cells."""


class PixelDecoder(nn.Module):
    """Deformable attention over all levels but the finest, then one FPN step onto the finest.

    Padding is treated as image, as in the reference, whose masks are all valid.

    Args:
        channels: of each level, finest first; the finest has no attention.
        width: channels of every output, a multiple of 8.
        layers: attention layers.
        precision: fp32 turns autocast off, as the reference does (its CUDA kernel has no half precision);
            autocast lets the matrix products and convolutions be low, with sums, norms, points and samples
            in fp32 all the same.
    """

    def __init__(self, channels: Sequence[int], width: int, layers: int, precision: str = "autocast") -> None:
        super().__init__()
        check_choice("pixel_precision", precision, PIXEL_PRECISIONS)
        self.precision = precision
        finest, *others = channels
        self.projections = nn.ModuleList(_biased_projection(level, width) for level in reversed(others))
        self.level_embedding = nn.Parameter(torch.empty(len(others), width))
        self.layers = nn.ModuleList(DeformableLayer(width, len(others)) for _ in range(layers))
        self.lateral = _plain_projection(finest, width)
        smooth = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.smooth = nn.Sequential(smooth, build_norm("gn", width), nn.ReLU())
        self.mask_projection = nn.Conv2d(width, width, 1)
        assert self.mask_projection.bias is not None
        nn.init.zeros_(self.mask_projection.bias)
        nn.init.normal_(self.level_embedding)
        for conv in (smooth, self.mask_projection):
            nn.init.kaiming_uniform_(conv.weight, a=1)  # detectron2's c2_xavier_fill

    def forward(self, maps: Sequence[Tensor]) -> DecodedPixels:
        """`maps` are (N, channels, y, x), finest first."""
        if self.precision == "autocast":
            return self._decode(maps)
        with torch.autocast(maps[0].device.type, enabled=False):
            return self._decode([x_NCYX.float() for x_NCYX in maps])

    def _decode(self, maps: Sequence[Tensor]) -> DecodedPixels:
        finest_NCYX, *others = maps
        coarse_first = others[::-1]
        sizes = tuple((x_NCYX.shape[2], x_NCYX.shape[3]) for x_NCYX in coarse_first)
        projected = [
            project(x_NCYX).flatten(2).transpose(1, 2)
            for project, x_NCYX in zip(self.projections, coarse_first, strict=True)
        ]
        # The running sum of the layers stays in full precision even if autocast lowered that of the maps.
        cells_NLC = torch.cat(projected, 1).to(self.level_embedding.dtype)
        width = cells_NLC.shape[-1]
        positions = tuple(sine_positions(size, width, cells_NLC) for size in sizes)
        codes_1LC = torch.cat(
            [code + level for code, level in zip(positions, self.level_embedding, strict=True)], 1
        )
        grid = CellGrid.of(sizes, cells_NLC)
        for layer in self.layers:
            cells_NLC = layer(cells_NLC, codes_1LC, grid)
        cells = torch.split(cells_NLC, [height * width for height, width in sizes], 1)
        return DecodedPixels(
            mask_features_NCYX=self._mask_features(finest_NCYX, cells[-1], sizes[-1]),
            cells=cells,
            positions=positions,
            sizes=sizes,
        )

    def _mask_features(self, finest_NCYX: Tensor, cells_NLC: Tensor, size: SizeYX) -> Tensor:
        lateral_NCYX = self.lateral(finest_NCYX)
        next_NyxC = cells_NLC.view(cells_NLC.shape[0], *size, -1)
        up_NCYX = F.interpolate(
            next_NyxC.permute(0, 3, 1, 2), size=lateral_NCYX.shape[2:], mode="bilinear", align_corners=False
        )
        mask_features_NCYX: Tensor = self.mask_projection(self.smooth(lateral_NCYX + up_NCYX))
        return mask_features_NCYX


class DeformableLayer(nn.Module):
    """Deformable attention, then a feed-forward of two linear layers; a LayerNorm after each sum."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(width, levels)
        self.attention_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, _FEEDFORWARD * width)
        self.reduce = nn.Linear(_FEEDFORWARD * width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        for linear in (self.expand, self.reduce):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, cells_NLC: Tensor, codes_1LC: Tensor, grid: CellGrid) -> Tensor:
        x_NLC = self.attention_norm(cells_NLC + self.attention(cells_NLC + codes_1LC, cells_NLC, grid))
        y_NLC: Tensor = self.feedforward_norm(x_NLC + self.reduce(self.expand(x_NLC).relu_()))
        return y_NLC


def _biased_projection(channels: int, width: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 1)
    assert conv.bias is not None
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, build_norm("gn", width))


def _plain_projection(channels: int, width: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 1, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)  # detectron2's c2_xavier_fill
    return nn.Sequential(conv, build_norm("gn", width))
