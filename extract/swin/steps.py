"""The functions that a step of a frozen SwinV2 runs, and what it returns.

Letters in tensor names: N images, L tokens of a map, C channels; in attention, B windows of all images, T
tokens of a window, H heads, D channels of a head, R offsets between two tokens of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from extract.swin.attention import AttentionWeights, Biases, BranchWeights
from extract.swin.window_rule import HW
from extract.swin.windows import Run, WindowPlan

Step = tuple[Tensor, Tensor | None]
"""What a network's step returns: a map (N, y, x, C) in float32, and the same rounded to the dtype of its
products where a kernel has made that along the way. The next step may be given both."""


class Block(Protocol):
    """A folded block (`extract.swin.block.FoldedBlock`), as the functions that run it see it."""

    @property
    def heads(self) -> int: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of matrix products."""

    @property
    def attention_weights(self) -> AttentionWeights: ...

    @property
    def branch_weights(self) -> BranchWeights: ...

    def log2_table(self, window: HW) -> Tensor:
        """Position bias by offset in a window of that size, float32 (H, R), times log2(e)."""

    def mix(
        self,
        q_BHTD: Tensor,
        k_BHTD: Tensor,
        v_BHTD: Tensor,
        window: HW,
        runs: Sequence[Run],
        functions: BlockFunctions,
    ) -> Tensor:
        """Attention, (B, H, T, D), of windows of a size in runs that share a mask."""


@dataclass(frozen=True, slots=True)
class MapRun:
    """`extract.kernels.block_on_map`, which needs Triton."""

    takes: Callable[[Block], bool]
    run: Callable[[Block, Tensor, Tensor | None, WindowPlan], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockFunctions:
    """Functions of `extract.swin.attention` (CPU) or `extract.swin.attention_gpu`, and of
    `extract.swin.patches`; plain or compiled."""

    enter: Callable[[Tensor, Tensor, int, AttentionWeights], tuple[Tensor, Tensor, Tensor]]
    mix: Callable[[Tensor, Tensor, Tensor, Biases], Tensor]
    project: Callable[[Tensor, BranchWeights], Tensor]
    leave: Callable[[Tensor, Tensor, Tensor, BranchWeights], Tensor]
    sum_bias: Callable[[Tensor, Tensor, Tensor | None, torch.dtype], Tensor]
    run: Callable[[Block, Tensor, WindowPlan, BlockFunctions], Tensor]
    """Runs a block by the functions above, of (N, L, C); see `extract.swin.block_by_windows`."""
    patch: Callable[..., Tensor]
    patch_pixels: Callable[..., Tensor]
    merge_and_norm: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    norm_and_merge: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    on_map: MapRun | None = None
    """Runs the blocks that it takes instead of the functions above."""
