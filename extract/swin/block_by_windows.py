"""Runs a folded block by windows: in groups on a CPU, all at once on a GPU.

On a CPU all at once is slower by a tenth, and `scaled_dot_product_attention` slower still. Where a GPU has a
compiler, half precision uses `extract.kernels.block_on_map` instead.

Letters in tensor names: N images, L tokens of a map, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.swin.image_threads import share
from extract.swin.steps import Block, BlockFunctions
from extract.swin.windows import WindowPlan

_GROUP_VALUES = 192 << 10
"""Values of a group's map, tokens times channels: what is made of its 192 KiB stays in a core's cache, deep
maps are cut into several groups that threads can share, and small models' maps are not cut into crumbs."""


def run_at_once(block: Block, x_NLC: Tensor, plan: WindowPlan, functions: BlockFunctions) -> Tensor:
    """All windows of all images in one call of each function, (N, L, C): for a GPU, with its functions."""
    images = x_NLC.shape[0]
    source = F.pad(x_NLC, (0, 0, 0, 1)) if plan.padded else x_NLC
    q, k, v = functions.enter(source, plan.gather, plan.tokens, block.attention_weights)
    runs = [(first * images, last * images, split) for first, last, split in plan.runs]
    branch = functions.project(block.mix(q, k, v, plan.window, runs, functions), block.branch_weights)
    return functions.leave(x_NLC, branch, plan.scatter, block.branch_weights)


def run_in_groups(block: Block, x_NLC: Tensor, plan: WindowPlan, functions: BlockFunctions) -> Tensor:
    """One image, (1, L, C): each group of windows stays in the cache while it goes through its functions.

    Groups follow from the map alone, so that the sums do not depend on how many threads share them.
    """
    tokens, channels = plan.tokens, x_NLC.shape[-1]
    attention, rest = block.attention_weights, block.branch_weights
    source = F.pad(x_NLC, (0, 0, 0, 1)) if plan.padded else x_NLC
    branch = x_NLC.new_empty(1, len(plan.gather), channels, dtype=block.dtype)
    out = torch.empty_like(x_NLC)

    def attend(group: tuple[int, int]) -> None:
        start, stop = group
        place = slice(start * tokens, stop * tokens)
        q, k, v = functions.enter(source, plan.gather[place], tokens, attention)
        mixed = block.mix(q, k, v, plan.window, plan.runs_between(start, stop), functions)
        branch[0, place] = functions.project(mixed, rest).view(-1, channels)

    def feed(group: tuple[int, int]) -> None:
        start, stop = group
        out[:, start:stop] = functions.leave(x_NLC[:, start:stop], branch, plan.scatter[start:stop], rest)

    size = max(1, _GROUP_VALUES // channels)
    share(attend, _groups(len(plan.gather) // tokens, max(1, size // tokens)))
    share(feed, _groups(x_NLC.shape[1], size))
    return out


def _groups(count: int, size: int) -> Iterator[tuple[int, int]]:
    """0..count in pieces of at most `size`.

    >>> list(_groups(5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, count, size):
        yield start, min(start + size, count)
