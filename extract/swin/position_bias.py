"""Relative position bias of both SwinV2 families, as a table over the offsets within a window.

Letters in tensor names: H heads, R offsets between two tokens of a window, T tokens of a window.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.swin.window_rule import HW


def offset_index(window: HW) -> Tensor:
    """int64 (T, T): which of the R offsets leads from token j to token i.

    >>> offset_index((1, 2)).tolist()
    [[1, 0], [2, 1]]
    """
    rows = torch.arange(window[0]).repeat_interleave(window[1])
    columns = torch.arange(window[1]).repeat(window[0])
    down = rows[:, None] - rows[None, :] + window[0] - 1
    across = columns[:, None] - columns[None, :] + window[1] - 1
    return down * (2 * window[1] - 1) + across


def _offsets(window: HW) -> Tensor:
    """float32 (R, 2): rows and columns between two tokens."""
    axes = [torch.arange(1.0 - size, size) for size in window]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 2)


def central_offsets(table_HR: Tensor, window: HW, cut: HW) -> Tensor:
    """(H, fewer offsets): of a table of a window's offsets, those that occur in a window cut to `cut`.

    >>> central_offsets(torch.arange(15).view(1, 15), (2, 3), (1, 2)).tolist()
    [[6, 7, 8]]
    """
    if cut == window:
        return table_HR
    (rows, columns), (down, across) = window, cut
    table = table_HR.view(len(table_HR), 2 * rows - 1, 2 * columns - 1)
    return table[:, rows - down : rows + down - 1, columns - across : columns + across - 1].flatten(1)


def v2_table(attention: Any, window: HW, pretrained_window: HW) -> Tensor:
    """float32 (H, R): 16 sigmoid(MLP(log-spaced offsets)).

    As microsoft/Swin-Transformer models/swin_transformer_v2.py: offsets are relative to the window of
    pretraining, times 8, sign(x) log2(|x| + 1) / log2(8).
    """
    extent = torch.tensor([max(size - 1, 1) for size in pretrained_window])
    offsets = _offsets(window) / extent * 8
    spaced = torch.sign(offsets) * torch.log2(offsets.abs() + 1) / math.log2(8)
    first, last = attention.cpb_mlp[0], attention.cpb_mlp[2]
    hidden = F.relu(F.linear(spaced, first.weight.float(), first.bias.float()))
    return 16 * torch.sigmoid(F.linear(hidden, last.weight.float())).T.contiguous()


def cr_table(attention: Any, window: HW) -> Tensor:
    """float32 (H, R): MLP(sign(x) ln(|x| + 1)) of offsets in cells; timm's swinv2_cr, without a sigmoid."""
    offsets = _offsets(window)
    spaced = torch.sign(offsets) * torch.log(offsets.abs() + 1)
    first, last = attention.meta_mlp.fc1, attention.meta_mlp.fc2
    hidden = F.relu(F.linear(spaced, first.weight.float(), first.bias.float()))
    return F.linear(hidden, last.weight.float(), last.bias.float()).T.contiguous()
