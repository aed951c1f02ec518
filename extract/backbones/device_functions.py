"""The functions of a network's steps for a kind of device, as they are or compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
import torch._dynamo
from torch import Tensor

from extract.swin import attention as frozen_attention
from extract.swin import attention_gpu as fused_attention
from extract.swin import patches
from extract.swin.attention import AttentionWeights, Biases, BranchWeights
from extract.swin.windows import WindowPlan

if TYPE_CHECKING:
    from extract.swin.block import FoldedBlock


Step = tuple[Tensor, Tensor | None]
"""What a network's step returns: a map (N, y, x, C) in float32, and the same rounded to the dtype of its
products where a kernel has made that along the way. The next step may be given both."""


@dataclass(frozen=True, slots=True)
class MapRun:
    """`extract.kernels.block_on_map`, which needs Triton."""

    takes: Callable[[FoldedBlock], bool]
    run: Callable[[FoldedBlock, Tensor, Tensor | None, WindowPlan], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class BlockFunctions:
    """Those of `frozen_attention` for a CPU, of `fused_attention` for a GPU."""

    enter: Callable[[Tensor, Tensor, int, AttentionWeights], tuple[Tensor, Tensor, Tensor]]
    mix: Callable[[Tensor, Tensor, Tensor, Biases], Tensor]
    project: Callable[[Tensor, BranchWeights], Tensor]
    leave: Callable[[Tensor, Tensor, Tensor, BranchWeights], Tensor]
    sum_bias: Callable[[Tensor, Tensor, Tensor | None, torch.dtype], Tensor]
    patch: Callable[..., Tensor] = patches.patch
    patch_pixels: Callable[..., Tensor] = patches.patch_pixels
    merge_and_norm: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = patches.merge_and_norm
    norm_and_merge: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = patches.norm_and_merge
    on_map: MapRun | None = None
    """For the blocks that it takes, instead of the others."""


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
    enter, leave = frozen_attention.enter, frozen_attention.leave
    if compiled:
        # In the one thread that calls (`image_threads`).
        of_any_size = partial(compiled_of_any_size, options={"cpp.threads": 1})
        enter = of_any_size(enter, {0: (0, 1), 1: (0,)})
        leave = of_any_size(leave, {0: (0, 1), 1: (0, 1), 2: (0,)})
    # Plain products gain nothing by being compiled.
    return BlockFunctions(
        enter, frozen_attention.mix, frozen_attention.project, leave, fused_attention.sum_bias
    )


def _for_a_gpu(compiled: bool) -> BlockFunctions:
    plain = BlockFunctions(
        fused_attention.enter,
        fused_attention.mix,
        frozen_attention.project,
        fused_attention.leave,
        fused_attention.sum_bias,
    )
    if not compiled:
        return plain
    from extract.kernels import block_on_map as map_run

    maps = {0: (0, 1, 2)}
    return replace(
        plain,  # the fused kernel is called as it is: nothing around it could be fused into it
        enter=compiled_of_any_size(plain.enter, {0: (0, 1), 1: (0,)}),
        leave=compiled_of_any_size(plain.leave, {0: (0, 1), 1: (0,), 2: (0,)}),
        sum_bias=compiled_of_any_size(plain.sum_bias, {0: (0,)}),
        patch_pixels=compiled_of_any_size(plain.patch_pixels, {0: (0, 1, 2), 1: (0,)}),
        merge_and_norm=compiled_of_any_size(plain.merge_and_norm, maps),
        norm_and_merge=compiled_of_any_size(plain.norm_and_merge, maps),
        on_map=MapRun(map_run.takes, map_run.run_on_map),
    )


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
