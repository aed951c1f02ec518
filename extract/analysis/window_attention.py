"""Attention of the windows of a folded SwinV2 block, with the block's own constants.

Keys of a query are the real cells of its region in the rolled map. The model's softmax also covers padding
tokens and, at logits lowered by 100, other regions; what it gives them is reported as leak.

Letters in tensor names: N images, H and W cells, L tokens of a map, C channels; in attention, B windows, T
tokens of a window, H heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.analysis.attention_statistics import AttentionSums, attention_sums, grid_distances_px
from extract.swin.attention import enter
from extract.swin.block import FoldedBlock
from extract.swin.window_rule import fit_windows
from extract.swin.windows import WindowPlan, window_plan

_LOGITS_BYTES = 128 << 20
"""128 MiB of float64 logits at a time; a few tensors of this size exist together."""


@dataclass(frozen=True, slots=True, eq=False)
class WindowLogits:
    """Some queries of some windows of one image."""

    logits_BHQT: Tensor
    """float64, position bias and mask included."""
    allowed_BQT: Tensor
    """bool: real cells of the query's region; none where the query is a padding token."""
    values_BHTD: Tensor
    """float64."""
    windows: slice
    """In the order of the plan."""
    queries: slice
    """Tokens of each window."""


def block_plan(block: FoldedBlock, x_NHWC: Tensor) -> WindowPlan:
    """The windows of a map."""
    grid = (x_NHWC.shape[1], x_NHWC.shape[2])
    return window_plan(grid, *fit_windows(block.window_rule, grid, block.window, block.shift), x_NHWC.device)


def window_logits(block: FoldedBlock, x_NHWC: Tensor) -> Iterator[WindowLogits]:
    """All windows of one image, in parts that fit into memory.

    Args:
        x_NHWC: the block's input, N = 1.
    """
    plan, cells = block_plan(block, x_NHWC), x_NHWC.shape[1] * x_NHWC.shape[2]
    tokens, weights = plan.tokens, block.attention_weights
    double = weights._replace(
        qkv_weight=weights.qkv_weight.double(),
        qkv_bias=weights.qkv_bias.double(),
        factor_QBHTD=weights.factor_QBHTD.double(),
    )
    source = x_NHWC.reshape(1, cells, -1).double()
    if plan.padded:
        source = F.pad(source, (0, 0, 0, 1))
    is_cell_BT = (plan.gather < cells).view(-1, tokens)
    region_BT = plan.regions.view(-1, tokens)
    of_a_query = 8 * block.heads * tokens
    queries = max(1, min(tokens, _LOGITS_BYTES // of_a_query))
    at_once = max(1, _LOGITS_BYTES // (of_a_query * tokens))
    for first, last, split in plan.runs:
        bias_HTT = block.bias(split, plan.window).double()
        for start in range(first, last, at_once):
            some = slice(start, min(start + at_once, last))
            q, k, v = enter(source, plan.gather[some.start * tokens : some.stop * tokens], tokens, double)
            for begin in range(0, tokens, queries):
                of = slice(begin, min(begin + queries, tokens))
                same_BQT = region_BT[some, of, None] == region_BT[some, None, :]
                yield WindowLogits(
                    logits_BHQT=q[:, :, of] @ k.transpose(-1, -2) + bias_HTT[:, of],
                    allowed_BQT=same_BQT & is_cell_BT[some, of, None] & is_cell_BT[some, None, :],
                    values_BHTD=v,
                    windows=some,
                    queries=of,
                )


def window_attention_sums(block: FoldedBlock, x_NHWC: Tensor, stride_px: float) -> AttentionSums:
    """Statistics of a block on one image; every real cell is a query once.

    Args:
        x_NHWC: the block's input, (1, H, W, C).
        stride_px: pixels of the network's input a cell of the map.
    """
    # Inside a region a window is contiguous, so that places in it are as far apart as those of the map.
    plan = block_plan(block, x_NHWC)
    distance_TT = grid_distances_px(*plan.window, stride_px).to(x_NHWC.device)
    sums: AttentionSums | None = None
    for part in window_logits(block, x_NHWC):
        found = attention_sums(part.logits_BHQT, part.allowed_BQT, distance_TT[part.queries])
        sums = found if sums is None else sums + found
    assert sums is not None
    return sums


def attention_branch(block: FoldedBlock, x_NHWC: Tensor) -> Tensor:
    """The projected attention of one image before its norm, float64 (1, H, W, C), out of the probabilities
    of `window_logits`: what the block itself adds to its map, by another way."""
    plan, shape = block_plan(block, x_NHWC), x_NHWC.shape
    mixed_BTC = x_NHWC.new_zeros(plan.windows, plan.tokens, shape[3], dtype=torch.float64)
    for part in window_logits(block, x_NHWC):
        read_BHQD = part.logits_BHQT.softmax(-1) @ part.values_BHTD
        mixed_BTC[part.windows, part.queries] = read_BHQD.transpose(1, 2).flatten(2)
    weights = block.branch_weights
    branch = F.linear(mixed_BTC, weights.proj_weight.double(), weights.proj_bias.double())
    return branch.view(1, -1, shape[3])[:, plan.scatter].view(shape)
