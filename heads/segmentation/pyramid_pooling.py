"""The pyramid pooling of PSPNet over the valid part of each map (mmseg:models/decode_heads/psp_head.py)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.contract import SizeYX
from heads.necks.conv_block import ConvBlock


class PyramidPooling(nn.Module):
    """Averages over 1, 4, 9 and 36 bins -> 1x1 each -> bilinear back -> 3x3 over them and the map itself.

    Bins divide the valid part only, so that padding does not change the result of an image.
    """

    def __init__(self, inputs: int, width: int, norm: str, scales: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.branches = nn.ModuleList(ConvBlock(inputs, width, 1, norm) for _ in scales)
        self.bottleneck = ConvBlock(inputs + len(scales) * width, width, 3, norm)

    def forward(self, x_NCYX: Tensor, valid_cells: Sequence[SizeYX] | Tensor) -> Tensor:
        """(N, inputs, y, x) and the valid cells (y, x) of each image -> (N, width, y, x).

        Beyond an image's valid part its pooled maps repeat their border.
        """
        size = tuple(x_NCYX.shape[2:])
        if not isinstance(valid_cells, Tensor) and all(tuple(cells) == size for cells in valid_cells):
            pooled = [
                F.interpolate(
                    branch(F.adaptive_avg_pool2d(x_NCYX, scale)),
                    size=size,
                    mode="bilinear",
                    align_corners=False,
                )
                for branch, scale in zip(self.branches, self.scales, strict=True)
            ]
        else:
            pooled = self._pool_valid(x_NCYX, valid_cells)
        out: Tensor = self.bottleneck(torch.cat([x_NCYX, *pooled], dim=1))
        return out

    def _pool_valid(self, x_NCYX: Tensor, valid_cells: Sequence[SizeYX] | Tensor) -> list[Tensor]:
        """The plain path on each image's valid part, all images at once: two matrix products a scale."""
        if isinstance(valid_cells, Tensor):
            cells_N2 = valid_cells
        else:
            cells_N2 = torch.tensor([tuple(cells) for cells in valid_cells])
        cells_N2 = cells_N2.to(x_NCYX.device, non_blocking=True)
        height, width = x_NCYX.shape[2:]
        pooled: list[Tensor] = []
        for branch, scale in zip(self.branches, self.scales, strict=True):
            average_y, average_x = (
                average_matrix(cells_N, size, scale)
                for cells_N, size in zip(cells_N2.T, (height, width), strict=True)
            )
            resize_y, resize_x = (
                resize_matrix(cells_N, size, scale)
                for cells_N, size in zip(cells_N2.T, (height, width), strict=True)
            )
            with torch.autocast(x_NCYX.device.type, enabled=False):
                bins_NCst = torch.einsum("nsy,ncyx,ntx->ncst", average_y, x_NCYX.float(), average_x)
            bins_NCst = branch(bins_NCst)
            with torch.autocast(x_NCYX.device.type, enabled=False):
                pooled.append(torch.einsum("nys,ncst,nxt->ncyx", resize_y, bins_NCst.float(), resize_x))
        return pooled


def average_matrix(valid_N: Tensor, size: int, bins: int) -> Tensor:
    """(N, bins, size): row i averages the cells of bin i of the first `valid` ones, as adaptive_avg_pool
    does.

    Bins overlap where they do not divide; with fewer cells than bins, cells are used several times.
    """
    bin_1S1 = torch.arange(bins, device=valid_N.device)[None, :, None]
    valid_N11 = valid_N[:, None, None]
    first = bin_1S1 * valid_N11 // bins
    end = ((bin_1S1 + 1) * valid_N11 + bins - 1) // bins
    cell_11Y = torch.arange(size, device=valid_N.device)[None, None]
    return ((cell_11Y >= first) & (cell_11Y < end)).float() / (end - first)


def resize_matrix(valid_N: Tensor, size: int, bins: int) -> Tensor:
    """(N, size, bins): resizes `bins` values bilinearly (align_corners False) to the first `valid` of
    `size` cells.

    Cells beyond repeat the last valid one.
    """
    cell_1Y1 = torch.arange(size, device=valid_N.device)[None, :, None].clamp(max=valid_N[:, None, None] - 1)
    source = ((cell_1Y1 + 0.5) * (bins / valid_N[:, None, None]) - 0.5).clamp(0, bins - 1)
    return (1 - (source - torch.arange(bins, device=valid_N.device)).abs()).clamp(min=0)
