"""Attention with a learned bias; its gradient is summed in pieces, never held for a whole batch.

Letters in tensor names: N sequences, H heads, L tokens, D channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE_BYTES = 64 << 20  # 64 MiB of one piece's logits; the backward pass of a piece holds a few such blocks


def biased_attention(q_NHLD: Tensor, k_NHLD: Tensor, v_NHLD: Tensor, bias_HLL: Tensor) -> Tensor:
    """softmax(q k^T + bias) v, without any scale; (N, H, L, D), all four of one dtype.

    At 784 tokens and 32 heads the logits of 64 clips are 5 GB in float32. PyTorch's fused kernels hold none
    of them, but give a bias that was broadcast over N a gradient of (N, H, L, L), or fall back to plain
    products. Here the backward pass takes a few sequences at a time through them and adds up (H, L, L).
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
        pieces = [torch.split(x, sequences_of_a_piece(bias_HLL)) for x in (q_NHLD, k_NHLD, v_NHLD, grad_NHLD)]
        grads: list[tuple[Tensor, ...]] = []
        # Summed in float32: thousands of half-precision terms would lose their low bits.
        grad_bias = torch.zeros_like(bias_HLL, dtype=torch.float32)
        for q, k, v, grad in zip(*pieces, strict=True):
            inputs = [x.detach().requires_grad_() for x in (q, k, v, bias_HLL)]
            with torch.enable_grad():
                out = _attend(*inputs)
            *grads_qkv, of_bias = torch.autograd.grad(out, inputs, grad)
            grads.append(tuple(grads_qkv))
            grad_bias += of_bias
        grad_q, grad_k, grad_v = (torch.cat(parts) for parts in zip(*grads, strict=True))
        return grad_q, grad_k, grad_v, grad_bias.to(bias_HLL.dtype)


def sequences_of_a_piece(bias_HLL: Tensor) -> int:
    """Sequences per piece of the backward pass: as many as fit PIECE_BYTES, 1 or more."""
    return max(1, PIECE_BYTES // (bias_HLL.numel() * bias_HLL.element_size()))


def _attend(q_NHLD: Tensor, k_NHLD: Tensor, v_NHLD: Tensor, bias_HLL: Tensor) -> Tensor:
    with torch.autocast(q_NHLD.device.type, enabled=False):
        return F.scaled_dot_product_attention(q_NHLD, k_NHLD, v_NHLD, attn_mask=bias_HLL[None], scale=1.0)
