"""Anchors: the reference boxes of a region proposal network (mmdet:core/anchor/anchor_generator.py).

One scale and three ratios a cell, centred on the cell's corner (x * stride, y * stride), unrounded.

Dims: N images, A anchors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ANCHOR_RATIOS = (0.5, 1.0, 2.0)
"""Height / width; in this order along a level's predictions."""


def cell_anchors(stride_px: float, scale: float, *, rounded: bool = False) -> Tensor:
    """float32 (3, 4): the anchors of the cell at the origin, each of (scale x stride)^2 px^2.

    `rounded` gives torchvision's, whose corners are whole pixels.
    """
    ratios = torch.tensor(ANCHOR_RATIOS)
    height_3 = scale * stride_px * ratios.sqrt()
    width_3 = scale * stride_px / ratios.sqrt()
    anchors_34 = torch.stack([-width_3, -height_3, width_3, height_3], 1) / 2
    return anchors_34.round() if rounded else anchors_34


def grid_anchors(cell_34: Tensor, grid_yx: Sequence[int], stride_px: float) -> Tensor:
    """(y * x * 3, 4): those of every cell, by rows of cells, the three of a cell side by side."""
    rows, columns = (torch.arange(cells, device=cell_34.device) * stride_px for cells in grid_yx)
    shift_y, shift_x = torch.meshgrid(rows, columns, indexing="ij")
    shifts_P4 = torch.stack([shift_x, shift_y, shift_x, shift_y], -1).flatten(0, 1)
    return (shifts_P4[:, None] + cell_34).flatten(0, 1)


def anchors_inside(anchors_A4: Tensor, image_hw_N2: Tensor) -> Tensor:
    """bool (N, A): which anchors lie inside each image, padding apart.

    mmdet:core/anchor/utils.py, `anchor_inside_flags` with allowed_border=0: a corner may lie on the left and
    the upper border, not on the right and the lower one.
    """
    from_zero_A = (anchors_A4[:, :2] >= 0).all(1)
    return from_zero_A & (anchors_A4[None, :, 2:] < image_hw_N2.flip(1)[:, None]).all(2)
