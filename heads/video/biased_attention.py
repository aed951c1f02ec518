"""Attention with a learned bias; its gradient is summed in pieces, never held for a whole batch.

Letters in tensor names: N sequences, H heads, L tokens, D channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE_BYTES = 64 << 20
"""64 MiB of one piece's logits; the backward pass of a piece holds a few such blocks."""
CPU_PIECE_BYTES = 8 << 20
"""8 MiB stay in a CPU's cache, and malloc gives such blocks out again and again. From 32 MiB on it maps fresh
pages for each: at 1568 tokens and 16 heads that took 43 % of the backward pass."""


def biased_attention(q_NHLD: Tensor, k_NHLD: Tensor, v_NHLD: Tensor, bias_HLL: Tensor) -> Tensor:
    """softmax(q k^T + bias) v, without any scale; (N, H, L, D), all four of one dtype.

    At 784 tokens and 32 heads the logits of 64 clips are 5 GB in float32. PyTorch's fused kernels hold none
    of them, but give a bias that was broadcast over N a gradient of (N, H, L, L), or fall back to plain
    products. Here the backward pass takes a few sequences,
    or heads of one, at a time through them and adds up (H, L, L).
    """
    out: Tensor = _BiasedAttention.apply(q_NHLD, k_NHLD, v_NHLD, bias_HLL)
    return out


class _BiasedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_NHLD: Tensor, k_NHLD: Tensor, v_NHLD: Tensor, bias_HLL: Tensor) -> Tensor:
        ctx.save_for_backward(q_NHLD, k_NHLD, v_NHLD, bias_HLL)
        # Detached: torch skips its fused kernels if the bias requires a gradient.
        return _attend(q_NHLD, k_NHLD, v_NHLD, bias_HLL.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NHLD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q_NHLD, k_NHLD, v_NHLD, bias_HLL = ctx.saved_tensors
        q_k_v = q_NHLD, k_NHLD, v_NHLD
        grads = [torch.empty_like(x) for x in q_k_v]
        # Summed in float32: thousands of half-precision terms would lose their low bits.
        grad_bias = torch.zeros_like(bias_HLL, dtype=torch.float32)
        sequences, heads = sizes_of_a_piece(bias_HLL)
        for first in range(0, len(q_NHLD), sequences):
            for head in range(0, len(bias_HLL), heads):
                some = slice(head, head + heads)
                of_piece = slice(first, first + sequences), some
                q, k, v = (x[of_piece].detach().requires_grad_() for x in q_k_v)
                bias = bias_HLL[some].detach().requires_grad_()
                with torch.enable_grad():
                    out = _attend(q, k, v, bias)
                *found, of_bias = torch.autograd.grad(out, [q, k, v, bias], grad_NHLD[of_piece])
                for whole, part in zip(grads, found, strict=True):
                    whole[of_piece] = part
                grad_bias[some] += of_bias
        grad_q, grad_k, grad_v = grads
        return grad_q, grad_k, grad_v, grad_bias.to(bias_HLL.dtype)


def sizes_of_a_piece(bias_HLL: Tensor) -> tuple[int, int]:
    """Sequences and heads of a piece of the backward pass: all heads of as many sequences as fit its bytes,
    or as many heads of one; 1 or more.

    >>> sizes_of_a_piece(torch.zeros(16, 784, 784)), sizes_of_a_piece(torch.zeros(4, 49, 49))
    ((1, 3), (218, 4))
    """
    piece_bytes = CPU_PIECE_BYTES if bias_HLL.is_cpu else PIECE_BYTES
    sequence_bytes = bias_HLL.numel() * bias_HLL.element_size()
    if sequence_bytes <= piece_bytes:
        return piece_bytes // sequence_bytes, len(bias_HLL)
    return 1, max(1, piece_bytes * len(bias_HLL) // sequence_bytes)


def _attend(q_NHLD: Tensor, k_NHLD: Tensor, v_NHLD: Tensor, bias_HLL: Tensor) -> Tensor:
    with torch.autocast(q_NHLD.device.type, enabled=False):
        return F.scaled_dot_product_attention(q_NHLD, k_NHLD, v_NHLD, attn_mask=bias_HLL[None], scale=1.0)
