"""`extract.swin.attention` for a GPU: the same numbers in the memory layout of fused kernels.

Queries, keys and values lie token by token, so that a fused kernel's output does too: the heads of a token
side by side, as the projection reads them. Images and windows change places inside the compiled functions,
where it costs no copy.

Letters in tensor names: N images, L tokens of a map, C channels, B windows of all images, T tokens of a
window, H heads, D channels of a head, R offsets between two tokens of a window.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from extract.swin import attention
from extract.swin.attention import SMALLEST_NORM, AttentionWeights, Biases, BranchWeights, linear

_MOST_TOKENS_WITHOUT_CUDNN = 144
"""Tokens of a window. On an H100 cuDNN's kernel takes 1.7 times as long as the other for 64 of them, 0.87 for
144, 0.5 for 256, 0.4 for 1024. But it takes half a second to prepare for every new number of windows, as test
images of all sizes bring."""


def enter(
    x_NLC: Tensor, gather: Tensor, tokens: int, weights: AttentionWeights
) -> tuple[Tensor, Tensor, Tensor]:
    """As `attention.enter`; (B, H, T, D) each, in memory (B, T, H, D)."""
    images, _, channels = x_NLC.shape
    heads, dtype = weights.factor_QBHTD.shape[2], weights.qkv_weight.dtype
    windows = x_NLC.index_select(1, gather).to(dtype).view(images, -1, tokens, channels).transpose(0, 1)
    qkv = linear(windows.reshape(-1, tokens, channels), weights.qkv_weight, weights.qkv_bias)
    qkv = qkv.view(-1, tokens, 3, heads, channels // heads)
    qk = qkv[:, :, :2].float()
    norm = torch.linalg.vector_norm(qk, dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)
    scaled = (qk * (weights.factor_QBHTD.view(2, heads, 1) / norm)).to(dtype)
    q, k, v = scaled[:, :, 0], scaled[:, :, 1], qkv[:, :, 2]
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def mix(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, biases: Biases) -> Tensor:
    """As `attention.mix`, (B, H, T, D) in memory (B, T, H, D): one kernel a bias, whose logits and
    softmax are float32 also where its inputs are float16."""
    with _kernels(q_BHTD):
        mixed_BTHD = [
            F.scaled_dot_product_attention(
                q_BHTD[some], k_BHTD[some], v_BHTD[some], attn_mask=bias_HTT[None], scale=1.0
            ).transpose(1, 2)
            for some, bias_HTT in biases
        ]
    together = mixed_BTHD[0] if len(mixed_BTHD) == 1 else torch.cat(mixed_BTHD)
    return together.transpose(1, 2)


def _kernels(q_BHTD: Tensor) -> AbstractContextManager[object]:
    """Which fused kernels torch may take for these windows: for small ones not cuDNN's, its first choice."""
    if q_BHTD.is_cuda and q_BHTD.shape[2] <= _MOST_TOKENS_WITHOUT_CUDNN:
        return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    return nullcontext()


def leave(x_NLC: Tensor, branch_BTC: Tensor, scatter: Tensor, weights: BranchWeights) -> Tensor:
    """As `attention.leave`; the branch as `enter` made it, the images of a window side by side."""
    images, (_, tokens, channels) = x_NLC.shape[0], branch_BTC.shape
    branch_NLC = branch_BTC.view(-1, images, tokens, channels).transpose(0, 1).reshape(images, -1, channels)
    return attention.leave(x_NLC, branch_NLC, scatter, weights)


def sum_bias(table_HR: Tensor, offsets: Tensor, mask_TT: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(H, T, T) in `dtype`: position bias plus mask, in one kernel where it is compiled.

    Args:
        offsets: int (T * T,), a column of the table for each pair of tokens.
    """
    tokens = math.isqrt(len(offsets))
    summed = table_HR.index_select(1, offsets).view(-1, tokens, tokens)
    return (summed if mask_TT is None else summed + mask_TT).to(dtype)
