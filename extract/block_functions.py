"""The functions of a block for a kind of device, as they are or compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from extract import frozen_attention, fused_attention
from extract.frozen_attention import AttentionWeights, BranchWeights


@dataclass(frozen=True, slots=True)
class BlockFunctions:
    """Those of `frozen_attention` for a CPU, of `fused_attention` for a GPU."""

    enter: Callable[[Tensor, Tensor, int, AttentionWeights], tuple[Tensor, Tensor, Tensor]]
    mix: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    project: Callable[[Tensor, BranchWeights], Tensor]
    leave: Callable[[Tensor, Tensor, Tensor, BranchWeights], Tensor]
    sum_bias: Callable[[Tensor, Tensor, Tensor | None, torch.dtype], Tensor]


@lru_cache(maxsize=4)
def functions_for(device_type: str, compiled: bool) -> BlockFunctions:
    """The functions for a kind of device. Compiled ones compile on first use, once a stage."""
    if compiled:
        allow_variants()
    return _for_a_cpu(compiled) if device_type == "cpu" else _for_a_gpu(compiled)


def allow_variants() -> None:
    """Four stages of several backbones: more variants of a function than the eight after which dynamo gives
    up."""
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)


def _for_a_cpu(compiled: bool) -> BlockFunctions:
    enter, mix, leave = frozen_attention.enter, frozen_attention.mix, frozen_attention.leave
    if compiled:
        # In the one thread that calls (`image_threads`).
        of_any_size = partial(compiled_of_any_size, options={"cpp.threads": 1})
        enter = of_any_size(enter, {0: (0, 1), 1: (0,)})
        mix = of_any_size(mix, {0: (0,), 1: (0,), 2: (0,)})
        leave = of_any_size(leave, {0: (0, 1), 1: (0, 1), 2: (0,)})
    return BlockFunctions(enter, mix, frozen_attention.project, leave, fused_attention.sum_bias)


def _for_a_gpu(compiled: bool) -> BlockFunctions:
    enter, leave, sum_bias = fused_attention.enter, fused_attention.leave, fused_attention.sum_bias
    if compiled:
        enter = compiled_of_any_size(enter, {0: (0, 1), 1: (0,)})
        leave = compiled_of_any_size(leave, {0: (0, 1), 1: (0,), 2: (0,)})
        sum_bias = compiled_of_any_size(sum_bias, {0: (0,)})
    # The fused kernel is called as it is: nothing around it could be fused into it.
    return BlockFunctions(enter, fused_attention.mix, frozen_attention.project, leave, sum_bias)


def compiled_of_any_size(
    function: Callable[..., Any],
    sizes: Mapping[int, tuple[int, ...]],
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """`function` compiled for any number of images, tokens and windows: else each bin would compile for a
    minute.

    Args:
        sizes: position of an argument -> those of its axes.
        options: of torch's compiler.
    """
    compiled = torch.compile(function, dynamic=False, options=dict(options or {}))

    def call(*arguments: Any) -> Any:
        for position, axes in sizes.items():
            for axis in axes:
                torch._dynamo.maybe_mark_dynamic(arguments[position], axis)
        return compiled(*arguments)

    return call
