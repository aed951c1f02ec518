"""The position bias of video blocks: SwinV2's network over log-spaced offsets, in time or in time and space.

Letters in tensor names: H heads, L tokens, A axes, R offsets between two tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 512
"""Width of the network [microsoft/Swin-Transformer models/swin_transformer_v2.py, cpb_mlp]."""


def log_spaced_offsets(extents: Sequence[int], device: torch.device | None = None) -> Tensor:
    """float32 (2 e1 - 1, ..., 2 eA - 1, A): offsets between two tokens of a grid, each axis within +-log8(9).

    An offset is taken as a share of the grid, times 8, then sign(x) log2(|x| + 1) / log2(8), so that a bias
    learned on one grid means the same shares of another [SwinV2 paper, eq. 4; swin_transformer_v2.py].

    >>> log_spaced_offsets([3])[:, 0].mul(3 / math.log2(9)).tolist()
    [-1.0, -0.732..., 0.0, 0.732..., 1.0]
    """
    shares = [torch.arange(1.0 - size, size, device=device) * (8 / max(size - 1, 1)) for size in extents]
    offsets = torch.stack(torch.meshgrid(*shares, indexing="ij"), dim=-1)
    return torch.sign(offsets) * torch.log2(offsets.abs() + 1) / math.log2(8)


def bias_of_pairs(table: Tensor, extents: Sequence[int]) -> Tensor:
    """(H, L, L) from (H, 2 e1 - 1, ..., 2 eA - 1): entry [i, j] is the table's entry of offset i - j.

    Every token's row is a window of the table, so no index is built, and the gradient is summed in a fixed
    order on any device.
    """
    for axis, size in enumerate(extents):
        table = table.unfold(1 + axis, size, 1)  # window i holds the offsets i - j, from j = size - 1 down
    to_tokens = table.flip(list(range(1 + len(extents), 1 + 2 * len(extents))))
    tokens = math.prod(extents)
    return to_tokens.reshape(table.shape[0], tokens, tokens)


class PositionBias(nn.Module):
    """Bias of a head's logits by the offset of a key from its query: 16 sigmoid(network(offset)) - 8.

    SwinV2 adds 16 sigmoid(...). Subtracting the constant 8 does not change the softmax but helps half
    precision: values start around 0 instead of 8, where bfloat16 has steps of 1/16.
    """

    without_weight_decay = True  # as `cpb_mlp` of SwinV2's no_weight_decay_keywords

    def __init__(self, axes: int, heads: int) -> None:
        super().__init__()
        self.hidden_weight = nn.Parameter(torch.empty(HIDDEN, axes))
        self.hidden_bias = nn.Parameter(torch.zeros(HIDDEN))
        self.head_weight = nn.Parameter(torch.empty(heads, HIDDEN))
        for weight in (self.hidden_weight, self.head_weight):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, extents: Sequence[int]) -> Tensor:
        """float32 (H, L, L) for a grid of `extents`, one size an axis, L their product; within -8..8."""
        with torch.autocast(self.head_weight.device.type, enabled=False):
            offsets = log_spaced_offsets(extents, self.head_weight.device)
            hidden = F.relu(F.linear(offsets, self.hidden_weight, self.hidden_bias))
            table = 16 * torch.sigmoid(F.linear(hidden, self.head_weight)) - 8
            return bias_of_pairs(table.movedim(-1, 0), extents)
