"""Transformer blocks over a clip's tokens: SwinV2's block with a window of all frames or the whole clip.

As microsoft/Swin-Transformer models/swin_transformer_v2.py: cosine attention with a learned scale, a bias
from log-spaced offsets, and norms after attention and MLP (res-post-norm).
Letters in tensor names: N clips, G groups of tokens that attend to each other, L tokens of a group, C
channels, H heads, D channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.errors import HeadError
from heads.necks.channel_dropout import drop_channels
from heads.video.biased_attention import biased_attention
from heads.video.position_bias import PositionBias

HEAD_CHANNELS = 32
MAX_LOG_SCALE = math.log(100.0)
MLP_RATIO = 4


class CosineAttention(nn.Module):
    """softmax(scale cos(q, k) + bias) v of each group, then a projection."""

    without_weight_decay = True  # biases and `logit_scale`, as in SwinV2; not its submodules' weights

    def __init__(self, channels: int, axes: int, *, position_bias: bool) -> None:
        super().__init__()
        if channels % HEAD_CHANNELS:
            raise HeadError(
                f"attention over {channels} channels, expected a multiple of {HEAD_CHANNELS}, a head's width"
            )
        heads = channels // HEAD_CHANNELS
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(channels))
        self.v_bias = nn.Parameter(torch.zeros(channels))  # keys have none, as in SwinV2
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.position_bias = PositionBias(axes, heads) if position_bias else None
        self.projection = nn.Linear(channels, channels)

    def forward(self, x_MLC: Tensor, extents: Sequence[int]) -> Tensor:
        """(M, L, C) to the same; the L tokens lie on a grid of `extents`, row-major."""
        bias_3C = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv_MLC = F.linear(x_MLC, self.qkv.weight, bias_3C)
        qkv_ML3HD = qkv_MLC.view(*x_MLC.shape[:2], 3, -1, HEAD_CHANNELS)
        q_MHLD, k_MHLD, v_MHLD = qkv_ML3HD.permute(2, 0, 3, 1, 4)
        # Cosines and their scale in float32, also under autocast: a scale of 100 magnifies every rounding.
        scale_H11 = self.logit_scale.float().clamp(max=MAX_LOG_SCALE).exp()
        q_MHLD = (F.normalize(q_MHLD.float(), dim=-1) * scale_H11).to(v_MHLD.dtype)
        k_MHLD = F.normalize(k_MHLD.float(), dim=-1).to(v_MHLD.dtype)
        if self.position_bias is None:
            mixed_MHLD = F.scaled_dot_product_attention(q_MHLD, k_MHLD, v_MHLD, scale=1.0)
        else:
            bias_HLL = self.position_bias(extents).to(v_MHLD.dtype)
            mixed_MHLD = biased_attention(q_MHLD, k_MHLD, v_MHLD, bias_HLL)
        mixed_MLC: Tensor = mixed_MHLD.transpose(1, 2).flatten(2)
        projected: Tensor = self.projection(mixed_MLC)
        return projected


class VideoBlock(nn.Module):
    """x + norm(attention(x)), then x + norm(mlp(x)).

    Both norms start at 0, so that a new block is the identity and a new head of blocks is the linear head.
    """

    def __init__(self, channels: int, axes: int, *, position_bias: bool, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.attention = CosineAttention(channels, axes, position_bias=position_bias)
        self.attention_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, MLP_RATIO * channels), nn.GELU(), nn.Linear(MLP_RATIO * channels, channels)
        )
        self.mlp_norm = nn.LayerNorm(channels)
        self.apply(_initialise)

    def forward(self, x_NGLC: Tensor, extents: Sequence[int], generator: torch.Generator | None) -> Tensor:
        """(N, G, L, C) to the same; tokens attend within their group only."""
        branch_NGLC = self.attention(x_NGLC.flatten(0, 1), extents).view(x_NGLC.shape)
        x_NGLC = x_NGLC + self._drop(self.attention_norm(branch_NGLC), generator)
        return x_NGLC + self._drop(self.mlp_norm(self.mlp(x_NGLC)), generator)

    def _drop(self, branch_NGLC: Tensor, generator: torch.Generator | None) -> Tensor:
        """Drop path: drops the branch of a whole clip, all its groups together."""
        if not self.training:
            return branch_NGLC
        return drop_channels(branch_NGLC.flatten(1, 2).unsqueeze(1), self.drop_path, generator).view(
            branch_NGLC.shape
        )


def _initialise(module: nn.Module) -> None:
    """As swin_transformer_v2.py: `_init_weights`, and `_init_respostnorm` for the norms."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
