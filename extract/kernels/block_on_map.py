"""Runs a folded block on a GPU without moving tokens: cuBLAS products and three Triton kernels.

Letters in tensor names: N images, L tokens of a map, C channels.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from extract.kernels.add_normed import add_normed
from extract.kernels.linear_gelu import linear_gelu
from extract.kernels.window_attention import attend
from extract.swin.attention import linear
from extract.swin.steps import Block
from extract.swin.windows import WindowPlan


def takes(block: Block) -> bool:
    """Whether the kernels can run a block: half precision, head size and GPU must fit."""
    qkv_bias = block.attention_weights.qkv_bias
    channels = len(qkv_bias) // 3 // block.heads
    half = block.dtype in (torch.float16, torch.bfloat16)
    return half and channels in (16, 32, 64) and _is_able(qkv_bias.device)


@lru_cache(maxsize=8)  # GPUs of a machine
def _is_able(device: torch.device) -> bool:
    """Ampere or later: the kernels use Nvidia instructions and more shared memory than older GPUs have."""
    if device.type != "cuda":
        return True  # in Triton's interpreter
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def run_on_map(
    block: Block, x_NLC: Tensor, low_NLC: Tensor | None, plan: WindowPlan
) -> tuple[Tensor, Tensor]:
    """The block's output, (N, L, C), in float32 and rounded to the block's dtype.

    No token is moved, and no padding token goes through a product.

    Args: low_NLC: x in the block's dtype, where the block before has made it.
    """
    attention, rest = block.attention_weights, block.branch_weights
    x = x_NLC.contiguous()
    low = x.to(block.dtype) if low_NLC is None else low_NLC
    qkv = linear(low, attention.qkv_weight, attention.qkv_bias)
    mixed = attend(qkv, block.log2_table(plan.window), plan, attention)
    branch = linear(mixed, rest.proj_weight, rest.proj_bias)
    x, low = add_normed(x, branch, rest.norm1_weight, rest.norm1_bias)
    branch = linear(linear_gelu(low, rest.fc1_weight, rest.fc1_bias), rest.fc2_weight, rest.fc2_bias)
    return add_normed(x, branch, rest.norm2_weight, rest.norm2_bias, rest.norm3_weight, rest.norm3_bias)
