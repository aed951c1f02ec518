"""The functions that a network's steps run on a CPU or GPU, plain or compiled."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial

from extract.backbones.compiler import allow_variants, compiled_of_any_size
from extract.swin import attention, attention_gpu, patches
from extract.swin.block_by_windows import run_at_once, run_in_groups
from extract.swin.steps import BlockFunctions, MapRun


@lru_cache(maxsize=4)
def functions_for(device_type: str, compiled: bool) -> BlockFunctions:
    """Functions for a device type such as cuda. Compiled ones compile on first use, once per stage."""
    if compiled:
        allow_variants()
    return _for_a_cpu(compiled) if device_type == "cpu" else _for_a_gpu(compiled)


def _for_a_cpu(compiled: bool) -> BlockFunctions:
    plain = BlockFunctions(
        enter=attention.enter,
        mix=attention.mix,
        project=attention.project,
        leave=attention.leave,
        sum_bias=attention_gpu.sum_bias,
        run=run_in_groups,
        patch=patches.patch,
        patch_pixels=patches.patch_pixels,
        merge_and_norm=patches.merge_and_norm,
        norm_and_merge=patches.norm_and_merge,
    )
    if not compiled:
        return plain
    # Compiled code stays in the calling thread (`image_threads`). Plain products gain nothing from it.
    of_any_size = partial(compiled_of_any_size, options={"cpp.threads": 1})
    return replace(
        plain,
        enter=of_any_size(plain.enter, {0: (0, 1), 1: (0,)}),
        leave=of_any_size(plain.leave, {0: (0, 1), 1: (0, 1), 2: (0,)}),
    )


def _for_a_gpu(compiled: bool) -> BlockFunctions:
    plain = replace(
        _for_a_cpu(compiled=False),
        enter=attention_gpu.enter,
        mix=attention_gpu.mix,
        leave=attention_gpu.leave,
        run=run_at_once,
    )
    if not compiled:
        return plain
    from extract.kernels import block_on_map  # late: Triton is installed only on machines with a GPU

    maps = {0: (0, 1, 2)}
    return replace(
        plain,  # `mix` stays uncompiled: nothing can be fused into its attention kernel
        enter=compiled_of_any_size(plain.enter, {0: (0, 1), 1: (0,)}),
        leave=compiled_of_any_size(plain.leave, {0: (0, 1), 1: (0,), 2: (0,)}),
        sum_bias=compiled_of_any_size(plain.sum_bias, {0: (0,)}),
        patch_pixels=compiled_of_any_size(plain.patch_pixels, {0: (0, 1, 2), 1: (0,)}),
        merge_and_norm=compiled_of_any_size(plain.merge_and_norm, maps),
        norm_and_merge=compiled_of_any_size(plain.norm_and_merge, maps),
        on_map=MapRun(block_on_map.takes, block_on_map.run_on_map),
    )
