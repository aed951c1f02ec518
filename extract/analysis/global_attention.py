"""Attention of timm's blocks in float64: ViTs over all tokens, and the windows of Swin V1.

The attention module of a block runs once more, as a copy in float64 with its fused kernel off, and the input
of its softmax is taken. A module that has no such single softmax over all tokens is refused by name.

Letters in tensor names: N images, H and W cells, L tokens with their prefix, C channels; in attention, B
windows, T tokens of a window.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from extract.analysis.attention_statistics import AttentionSums, attention_sums, grid_distances_px
from extract.swin.timm_swin import correct_attention
from extract.swin.window_rule import fit_windows, padded_grid
from extract.swin.windows import partition, window_regions

NOT_GLOBAL = ("VisionTransformerSAM", "Xcit", "Cait", "Hiera")
"""timm's classes without one softmax over all tokens in every block."""


class NoGlobalAttention(ValueError):
    """The model's blocks have no single softmax over all tokens."""


class _SoftmaxInputs(TorchFunctionMode):
    """Keeps what softmax is called on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "softmax":
            self.found.append(args[0])
        return func(*args, **(kwargs or {}))


def check_global(trunk: nn.Module, model: str) -> None:
    """Raises NoGlobalAttention for a model whose attention these functions cannot take."""
    blocks = getattr(trunk, "blocks", None)
    if type(trunk).__name__ in NOT_GLOBAL or blocks is None or not all(hasattr(b, "attn") for b in blocks):
        raise NoGlobalAttention(
            f"{model}: {type(trunk).__name__} has no single softmax over all tokens in each block; attention "
            f"is analysed of ViTs (also DeiT, BEiT, EVA, DINO, CLIP) and of Swin"
        )


def attention_logits(attention: nn.Module, *inputs: Any, **named: Any) -> Tensor:
    """What an attention module takes the softmax of, float64; computed by a copy of it in float64.

    Raises NoGlobalAttention unless it takes exactly one.
    """
    double: Any = copy.deepcopy(attention).double()
    double.fused_attn = False
    with _SoftmaxInputs() as softmax:
        double(*map(_double, inputs), **{name: _double(value) for name, value in named.items()})
    if len(softmax.found) != 1:
        raise NoGlobalAttention(
            f"{type(attention).__name__} calls softmax {len(softmax.found)} times, expected one over tokens"
        )
    logits: Tensor = softmax.found[0]
    return logits


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def token_attention_sums(
    logits_NHLL: Tensor, *, grid: tuple[int, int], prefix: int, stride_px: float, keep_prefix: bool = False
) -> AttentionSums:
    """Statistics of one block over the patch tokens of some images.

    Prefix tokens (class, registers) are no queries and, unless kept, no keys; the mass on them is the leak.

    Args:
        logits_NHLL: with prefix tokens first.
        grid: rows and columns of patches.
        keep_prefix: leave them among the keys of entropy and KL, never of the distance.

    Raises NoGlobalAttention where the logits are not over prefix and patches.
    """
    tokens = prefix + grid[0] * grid[1]
    if logits_NHLL.ndim != 4 or logits_NHLL.shape[2:] != (tokens, tokens):
        raise NoGlobalAttention(
            f"softmax over {tuple(logits_NHLL.shape[2:])}, expected all {tokens} tokens by all"
        )
    queries_NHQL = logits_NHLL[:, :, prefix:]
    allowed_1QL = (torch.arange(tokens, device=logits_NHLL.device) >= prefix).expand(1, tokens - prefix, -1)
    distance_QL = torch.zeros(tokens - prefix, tokens, dtype=torch.float64)
    distance_QL[:, prefix:] = grid_distances_px(*grid, stride_px)
    return attention_sums(
        queries_NHQL,
        allowed_1QL,
        distance_QL.to(logits_NHLL.device),
        wide_GQT=torch.ones_like(allowed_1QL) if keep_prefix else None,
    )


def swin_v1_attention_sums(block: Any, x_1HWC: Tensor, stride_px: float) -> AttentionSums:
    """Statistics of the windows of a Swin V1 block on one image, as of `window_attention_sums`.

    Args:
        block: of `extract.swin.timm_swin.create_trunk`.
        x_1HWC: the block's input.
    """
    height, width = x_1HWC.shape[1:3]
    window, shift = fit_windows(block.window_rule, (height, width), block.window_size, block.shift_size)
    double: Any = correct_attention(copy.deepcopy(block).double())
    double.attn.fused_attn = False
    with _SoftmaxInputs() as softmax:
        double._attn(double.norm1(x_1HWC.double()))
    (logits_BHTT,) = softmax.found
    rows, columns = padded_grid((height, width), window)
    is_cell = torch.zeros(1, rows, columns, 1, dtype=torch.bool, device=x_1HWC.device)
    is_cell[:, :height, :width] = True
    is_cell_BT = partition(torch.roll(is_cell, (-shift[0], -shift[1]), (1, 2)), window).squeeze(-1)
    region_BT = window_regions((rows, columns), window, shift, x_1HWC.device)
    allowed_BTT = (region_BT[:, :, None] == region_BT[:, None]) & is_cell_BT[:, :, None] & is_cell_BT[:, None]
    distance_TT = grid_distances_px(*window, stride_px).to(x_1HWC.device)
    return attention_sums(logits_BHTT, allowed_BTT, distance_TT)
