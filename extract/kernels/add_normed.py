"""Residual addition with the branch's LayerNorm, as one Triton kernel.

Letters in tensor names: M rows, C channels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from extract.swin.attention import NORM_EPS

_VALUES = 4096
"""Values per program, 32 per thread; a row may have more."""


def add_normed(
    x_MC: Tensor,
    branch_MC: Tensor,
    weight: Tensor,
    bias: Tensor,
    last_weight: Tensor | None = None,
    last_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """x + norm(branch), normed once more where a last norm is given: in float32 and in the branch's dtype.

    Args:
        x_MC: float32, contiguous, of any number of axes before the last.
        branch_MC: as many values in float16 or bfloat16, contiguous.
        weight: float32 (C,), as all that follow.
    """
    channels = x_MC.shape[-1]
    rows, block = x_MC.numel() // channels, triton.next_power_of_2(channels)
    out, low = torch.empty_like(x_MC), torch.empty_like(x_MC, dtype=branch_MC.dtype)
    rows_at_once = max(1, _VALUES // block)
    _add_normed[(triton.cdiv(rows, rows_at_once),)](
        x_MC,
        branch_MC,
        weight,
        bias,
        weight if last_weight is None else last_weight,
        bias if last_bias is None else last_bias,
        out,
        low,
        rows,
        CHANNELS=channels,
        ROWS=rows_at_once,
        BLOCK=block,
        LAST=last_weight is not None,
        EPS=NORM_EPS,
        num_warps=4,
    )
    return out, low


@triton.jit
def _add_normed(
    x,
    branch,
    weight,
    bias,
    last_weight,
    last_bias,
    out,
    low,
    rows,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    LAST: tl.constexpr,
    EPS: tl.constexpr,
):
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, BLOCK)
    at = m.to(tl.int64)[:, None] * CHANNELS + c[None, :]
    inside = (m < rows)[:, None] & (c < CHANNELS)[None, :]
    branch_MC = tl.load(branch + at, mask=inside, other=0.0).to(tl.float32)
    sum_MC = tl.load(x + at, mask=inside, other=0.0)
    sum_MC += _norm(branch_MC, weight, bias, c, CHANNELS, EPS)
    if LAST:
        sum_MC = _norm(sum_MC, last_weight, last_bias, c, CHANNELS, EPS)
    tl.store(out + at, sum_MC, mask=inside)
    tl.store(low + at, sum_MC.to(low.dtype.element_ty), mask=inside)


@triton.jit
def _norm(x_MC, weight, bias, c, CHANNELS: tl.constexpr, EPS: tl.constexpr):
    """LayerNorm of rows that are 0 beyond their channels."""
    inside_C = c < CHANNELS
    mean_M = tl.sum(x_MC, 1) / CHANNELS
    apart_MC = tl.where(inside_C[None, :], x_MC - mean_M[:, None], 0.0)
    variance_M = tl.sum(apart_MC * apart_MC, 1) / CHANNELS
    normed_MC = apart_MC * tl.rsqrt(variance_M + EPS)[:, None]
    weight_C = tl.load(weight + c, mask=inside_C, other=0.0)
    return normed_MC * weight_C[None, :] + tl.load(bias + c, mask=inside_C, other=0.0)[None, :]
