"""Geometry of shifted windows: padding, partition, the shift mask, and the gather indices of all three.

Letters in tensor names: N images, H and W cells, C channels; W windows where it stands first, T tokens of a
window.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

HW = tuple[int, int]

MASKED = -100.0
"""Added to the logit of a pair from different regions. [R] microsoft/Swin-Transformer
models/swin_transformer_v2.py; transformers 5.x adds it twice."""


def padded_grid(grid: HW, window: HW) -> HW:
    """The smallest multiple of the window that holds the grid.

    >>> padded_grid((63, 83), (8, 8))
    (64, 88)
    """
    return -(-grid[0] // window[0]) * window[0], -(-grid[1] // window[1]) * window[1]


def pad_to_windows(x_NHWC: Tensor, window: HW) -> Tensor:
    """x padded with zero tokens at the bottom and the right."""
    height, width = x_NHWC.shape[1:3]
    rows, columns = padded_grid((height, width), window)
    if (rows, columns) == (height, width):
        return x_NHWC
    return F.pad(x_NHWC, (0, 0, 0, columns - width, 0, rows - height))


def partition(x_NHWC: Tensor, window: HW) -> Tensor:
    """(N * windows, tokens, C), windows and tokens row by row; H and W are multiples of the window."""
    images, height, width, channels = x_NHWC.shape
    split = x_NHWC.view(
        images, height // window[0], window[0], width // window[1], window[1], channels
    ).transpose(2, 3)
    return split.reshape(-1, window[0] * window[1], channels)


def reverse(windows_WTC: Tensor, window: HW, grid: HW) -> Tensor:
    """(N, H, W, C): the inverse of `partition`."""
    channels = windows_WTC.shape[-1]
    split = windows_WTC.view(-1, grid[0] // window[0], grid[1] // window[1], *window, channels)
    return split.transpose(2, 3).reshape(-1, *grid, channels)


def _regions(size: int, window: int, shift: int, device: torch.device | str | None) -> Tensor:
    """Which of the three stripes each row (or column) of a rolled map belongs to."""
    position = torch.arange(size, device=device)
    return (position >= size - window).long() + (position >= size - shift).long()


def shift_mask(
    grid: HW,
    window: HW,
    shift: HW,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor | None:
    """What is added to the logits of a rolled map so that tokens of different regions do not meet.

    Args:
        grid: height and width of the padded map, multiples of the window.

    Returns:
        (windows, tokens, tokens), 0 or -100; None without a shift.
    """
    if not any(shift):
        return None
    rows = _regions(grid[0], window[0], shift[0], device)
    columns = _regions(grid[1], window[1], shift[1], device)
    region = (rows[:, None] * 3 + columns[None, :]).view(1, *grid, 1)
    label = partition(region, window).squeeze(-1)
    differs = label[:, :, None] != label[:, None, :]
    return torch.zeros(differs.shape, device=device, dtype=dtype).masked_fill_(differs, MASKED)
