"""Compiles GPU kernels as they are launched, without a GPU, and prints the shared memory each needs.

For a process of its own, in which Triton does not interpret:

    TRITON_INTERPRET=0 python -m tests.extract.kernels.compiled_kernels 86 float16
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import mangle_type

from extract.kernels import add_normed, linear_gelu, window_attention
from extract.swin.attention import AttentionWeights
from extract.swin.window_rule import HW
from extract.swin.windows import window_plan


class Compiled:
    """Stands in a kernel's place; a launch compiles it."""

    def __init__(self, kernel: Any, target: GPUTarget, found: list[tuple[str, int]]) -> None:
        self.kernel, self.target, self.found = kernel, target, found

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self.launch

    def launch(self, *arguments: Any, num_warps: int, num_stages: int = 3, **constants: Any) -> None:
        names = self.kernel.arg_names
        types = dict(zip(names, map(mangle_type, arguments), strict=False))
        pointers = [name for name, type_ in types.items() if type_.startswith("*")]
        source = ASTSource(
            fn=self.kernel,
            signature={name: types.get(name, "constexpr") for name in names},
            constexprs={(names.index(name),): value for name, value in constants.items()},
            attrs={(names.index(name),): [["tt.divisibility", 16]] for name in pointers},
        )
        options = {"num_warps": num_warps, "num_stages": num_stages}
        compiled = triton.compile(source, target=self.target, options=options)
        self.found.append((self.kernel.__name__, compiled.metadata.shared))


def attend(grid: HW, window: HW, shift: HW, heads: int, dtype: torch.dtype) -> None:
    channels = 32 * heads
    table = torch.zeros(heads, (2 * window[0] - 1) * (2 * window[1] - 1))
    weights = AttentionWeights(
        torch.zeros(3 * channels, channels, dtype=dtype),
        torch.zeros(3 * channels, dtype=dtype),
        torch.zeros(2, 1, heads, 1, 1),
    )
    plan = window_plan(grid, window, shift, torch.device("cpu"))
    qkv = torch.zeros(1, grid[0] * grid[1], 3 * channels, dtype=dtype)
    window_attention.attend(qkv, table, plan, weights)


def compile_all(capability: int, dtype: torch.dtype) -> list[tuple[str, int]]:
    """Kernels and their bytes: of T's windows, B's of 12, and G's of 40, padded and shifted."""
    found: list[tuple[str, int]] = []
    target = GPUTarget("cuda", capability, 32)
    for module, names in (
        (window_attention, ("attend_small", "attend_large")),
        (linear_gelu, ("_linear_gelu",)),
        (add_normed, ("_add_normed",)),
    ):
        for name in names:
            setattr(module, name, Compiled(getattr(module, name), target, found))
    attend((9, 8), (8, 8), (0, 4), 3, dtype)
    attend((24, 13), (12, 12), (6, 6), 4, dtype)
    attend((41, 40), (40, 40), (20, 0), 16, dtype)
    for depth in (96, 512):
        x, weight = torch.zeros(130, depth, dtype=dtype), torch.zeros(4 * depth, depth, dtype=dtype)
        linear_gelu.linear_gelu(x, weight, weight[:, 0].contiguous())
    for norms in (2, 4):
        x = torch.zeros(3, 512)
        add_normed.add_normed(x, x.to(dtype), *[x[0]] * norms)
    return found


if __name__ == "__main__":
    print(json.dumps(compile_all(int(sys.argv[1]), getattr(torch, sys.argv[2]))))
