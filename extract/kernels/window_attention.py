"""Shifted-window attention on a GPU that leaves tokens in map order.

Letters in tensor names: N images, L tokens of a map, C channels, H heads, R offsets between two tokens of a
window.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
from torch import Tensor

from extract.kernels.window_kernels import attend_large, attend_small
from extract.swin.attention import SMALLEST_NORM, AttentionWeights
from extract.swin.windows import MASKED, WindowPlan

_MOST_TOKENS_AT_HAND = 256
"""Largest window, in tokens, whose keys and values one program holds at once."""
_SMALLEST_TILE = 16
"""Of a tensor core."""


class Tiles(NamedTuple):
    """How a window is cut."""

    queries: int
    """At a time."""
    keys: int
    """At a time, or in the first of two tiles."""
    more_keys: int
    """In the second tile of a small window; 0: there is none."""


def attend(qkv_NLC: Tensor, table_HR: Tensor, plan: WindowPlan, weights: AttentionWeights) -> Tensor:
    """softmax(q k' + bias + mask) v of every window of a map, (N, L, C) in the map's order.

    The same numbers as those of `enter` and `mix` of `extract.swin.attention_gpu`, but for the order of sums.

    Args:
        qkv_NLC: (N, L, 3 C) float16 or bfloat16, contiguous: queries, keys, values, each head by head.
        table_HR: float32, contiguous: position bias by offset in a window of the plan, as of
        `extract.swin.position_bias`, times log2(e).
        weights: of the block, for its factors, and for the bias that is all a padding token has.
    """
    images, length, width = qkv_NLC.shape
    heads, tiles = len(table_HR), tiles_for(plan.tokens)
    small = plan.tokens <= _MOST_TOKENS_AT_HAND
    kernel = attend_small if small else attend_large
    cut = {"MORE_KEYS": tiles.more_keys} if small else {}
    parts = 1 if small else triton.cdiv(plan.tokens, tiles.queries)
    mixed = qkv_NLC.new_empty(images, length, width // 3)
    # Most windows have no mask: their launch skips it.
    for first, last, split in ((0, plan.whole, False), (plan.whole, plan.windows, True)):
        if first == last:
            continue
        kernel[((last - first) * images * heads * parts,)](
            qkv_NLC,
            mixed,
            table_HR,
            weights.factor_QBHTD,
            weights.qkv_bias,
            plan.gather,
            plan.regions,
            first,
            images,
            length,
            HEADS=heads,
            HIGH=plan.window[0],
            WIDE=plan.window[1],
            CHANNELS=width // 3 // heads,
            PADDED=plan.padded,
            SPLIT=split,
            QUERIES=tiles.queries,
            KEYS=tiles.keys,
            MASKED=MASKED,
            SMALLEST_NORM=SMALLEST_NORM,
            num_warps=4,
            num_stages=1,  # prefetching takes registers and is slower
            **cut,
        )
    return mixed


def tiles_for(tokens: int) -> Tiles:
    """Powers of two, the fastest found on an H100; 144 tokens are 128 keys and 16.

    >>> tuple(tiles_for(144)), tuple(tiles_for(64)), tuple(tiles_for(1600))
    ((64, 128, 16), (64, 64, 0), (64, 64, 0))
    """
    if tokens > _MOST_TOKENS_AT_HAND:
        return Tiles(64, 64, 0)
    keys = max(_SMALLEST_TILE, 1 << (tokens.bit_length() - 1))
    more_keys = max(_SMALLEST_TILE, triton.next_power_of_2(tokens - keys)) if tokens > keys else 0
    return Tiles(min(64, keys), keys, more_keys)
