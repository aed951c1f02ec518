"""The computations of a frozen SwinV2 block as functions of tensors, eager or compiled.

`enter` gathers the tokens of windows and makes queries, keys and values of them; `mix` is the attention
proper; `leave` brings the tokens back, adds them to the map and runs the block's second half. What is the
same for every image is passed as constants: position bias with shift mask, logit scale, qkv bias.

Letters in tensor names: N images, L tokens of a map, C channels, B windows of all images, T tokens of a
window, H heads, D channels of a head, Q query and key.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Biases = Sequence[tuple[slice, Tensor]]
"""Windows, and what is added to their logits, (H, T, T): together all windows, in order."""

SMALLEST_NORM = 1e-12
"""eps of torch.nn.functional.normalize."""
NORM_EPS = 1e-5
"""eps of every LayerNorm of SwinV2, in timm, transformers and microsoft/Swin-Transformer."""


class AttentionWeights(NamedTuple):
    """Of one block; matrices in the precision of the forward pass, factors in float32."""

    qkv_weight: Tensor
    qkv_bias: Tensor
    factor_QBHTD: Tensor
    """(2, 1, heads, 1, 1): exp of the clamped logit scale for queries, 1 for keys."""


class BranchWeights(NamedTuple):
    """Of one block: what follows the attention. Norms in float32."""

    proj_weight: Tensor
    proj_bias: Tensor
    norm1_weight: Tensor
    norm1_bias: Tensor
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor
    norm3_weight: Tensor | None
    """SwinV2-G's extra norm of the main branch, in every sixth block and at the end."""
    norm3_bias: Tensor | None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W' + b without gradients, in float32 on a CPU by oneDNN where it is the faster one.

    On an AMD EPYC with AVX-512 it does 200 GFLOP/s a core, the MKL that torch takes by itself 95; on Intel's
    both do as much. With AVX2, MKL is faster: by a tenth for SwinV2-T at 512 px, by a third for small maps.
    """
    if x.is_cpu and x.dtype is torch.float32 and _prefers_onednn() and not torch.compiler.is_compiling():
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return F.linear(x, weight, bias)


@cache  # neither changes while a process runs, and every product needs it
def _prefers_onednn() -> bool:
    backend: Any = torch.backends.mkldnn
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and bool(backend.is_available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def enter(
    x_NLC: Tensor, gather: Tensor, tokens: int, weights: AttentionWeights
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of some windows.

    Args:
        x_NLC: the map, with a row of zeros at its end where `gather` names padding tokens.
        gather: int64 (windows * tokens,).
        tokens: of a window.

    Returns:
        Scaled normalised queries, normalised keys, values: (windows * N, H, T, D) each, windows first.
    """
    images, _, channels = x_NLC.shape
    heads, dtype = weights.factor_QBHTD.shape[2], weights.qkv_weight.dtype
    windows = x_NLC.index_select(1, gather).to(dtype)
    if images > 1:
        windows = windows.view(images, -1, tokens, channels).transpose(0, 1)
    qkv = linear(windows.reshape(-1, tokens, channels), weights.qkv_weight, weights.qkv_bias)
    qkv = qkv.view(-1, tokens, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    # Norms in float32 at least: in float16 the smallest one would be 0, and a square may overflow.
    qk = qkv[:2].to(torch.promote_types(dtype, torch.float32))
    norm = torch.linalg.vector_norm(qk, dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)
    # Written straight into the layout that batched products take, which saves a copy.
    scaled = torch.empty(qk.shape, dtype=dtype, device=qk.device)
    torch.mul(qk, weights.factor_QBHTD / norm, out=scaled)
    return scaled[0], scaled[1], qkv[2]


def mix(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, biases: Biases) -> Tensor:
    """softmax(q k' + bias) v, (B, H, T, D), by plain products: a CPU's fused kernel is slower on windows."""
    windows, heads, tokens, _ = q_BHTD.shape
    q, k, v = (part.reshape(windows * heads, tokens, -1).float() for part in (q_BHTD, k_BHTD, v_BHTD))
    logits = torch.bmm(q, k.transpose(1, 2)).view(windows, heads, tokens, tokens)
    # In place: the logits are the largest tensor of a block.
    for some, bias_HTT in biases:
        logits[some].add_(bias_HTT)
    weights = logits.softmax(dim=-1).view(windows * heads, tokens, tokens)
    return torch.bmm(weights, v).view(windows, heads, tokens, -1).to(v_BHTD.dtype)


def project(mixed_BHTD: Tensor, weights: BranchWeights) -> Tensor:
    """The attention branch of windows before its norm, (B, T, C)."""
    return linear(mixed_BHTD.transpose(1, 2).flatten(2), weights.proj_weight, weights.proj_bias)


def leave(x_NLC: Tensor, branch_NLC: Tensor, scatter: Tensor, weights: BranchWeights) -> Tensor:
    """The block's output for some tokens, (N, L, C) float32.

    Args:
        x_NLC: those tokens of the map, float32.
        branch_NLC: `project`'s output for all windows, one image after another.
        scatter: int64 (L,), where in the branch each token stands.
    """
    width = (x_NLC.shape[-1],)
    dtype = weights.fc1_weight.dtype
    attended = branch_NLC.index_select(1, scatter).float()
    x = x_NLC + F.layer_norm(attended, width, weights.norm1_weight, weights.norm1_bias, NORM_EPS)
    hidden = F.gelu(linear(x.to(dtype), weights.fc1_weight, weights.fc1_bias))
    fed = linear(hidden, weights.fc2_weight, weights.fc2_bias).float()
    x = x + F.layer_norm(fed, width, weights.norm2_weight, weights.norm2_bias, NORM_EPS)
    if weights.norm3_weight is None:
        return x
    return F.layer_norm(x, width, weights.norm3_weight, weights.norm3_bias, NORM_EPS)
