"""Sine position codes of map cells (Mask2Former:modeling/transformer_decoder/position_encoding.py)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from heads.contract import SizeYX

_TEMPERATURE = 10_000.0
_EPS = 1e-6


def sine_positions(size: SizeYX, width: int, like: Tensor) -> Tensor:
    """Codes (1, cells, width) in row order, the first half of the channels for y, the second for x.

    A cell's index, counted from 1, is scaled so that the last one is at 2 pi; sines and cosines of falling
    frequency alternate.

    Args:
        size: cells along y and x.
        width: channels, a multiple of 4.
        like: its device and dtype are the codes'.
    """
    half = width // 2
    channel = torch.arange(half, device=like.device, dtype=like.dtype)
    period = _TEMPERATURE ** (2 * (channel // 2) / half)
    y_YC, x_XC = (_codes(cells, period) for cells in size)
    y_YXC = y_YC[:, None].expand(*size, half)
    x_YXC = x_XC[None].expand(*size, half)
    return torch.cat([y_YXC, x_YXC], dim=-1).flatten(0, 1)[None]


def _codes(cells: int, period: Tensor) -> Tensor:
    index = torch.arange(1, cells + 1, device=period.device, dtype=period.dtype)
    angle = (index / (cells + _EPS) * (2 * math.pi))[:, None] / period
    return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)
