"""SwinV2 and SwinV2-G as a frozen network: constants folded, one image or a batch at a time.

On a CPU a block works through its windows in groups whose tensors stay in the cache (1.2 times timm's speed;
`scaled_dot_product_attention` was 0.82 times). On a GPU it takes all windows of all images at once.

Letters in tensor names: N images, H and W cells, L tokens of a map, C channels, B windows of all images, T
tokens of a window; in attention, H heads and D channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.folded_block import FoldedBlock, keep_constants
from extract.frozen_attention import NORM_EPS, Steps, steps_for
from extract.trunks import stages_of
from extract.windows import HW, WindowPlan, window_plan

_GROUP_TOKENS = 1024
"""Tokens a CPU takes at a time; 512 to 2048 are equally fast for SwinV2-T, all at once is 8 % slower."""


class FoldedSwin(nn.Module):
    """The stages of a SwinV2 (`swinv2` or `swinv2_cr`), up to the last one wanted."""

    def __init__(
        self,
        trunk: Any,
        *,
        stages: int,
        pretrained_windows: Sequence[HW],
        dtype: torch.dtype,
        compiled: bool = False,
    ) -> None:
        """From timm's trunk with its weights on the CPU, which may be released afterwards.

        Args:
            stages: how many of them, from the first.
            pretrained_windows: one a stage for the family swinv2, none for swinv2_cr.
            dtype: of matrix products.
            compiled: run the steps of a block compiled; the first batch of a size then takes a minute.
        """
        super().__init__()
        self.compiled = compiled
        self.patches = _Patches(trunk.patch_embed, dtype)
        self.stages: Any = nn.ModuleList()
        every: list[FoldedBlock] = []
        for number, stage in enumerate(stages_of(trunk)[:stages]):
            window = pretrained_windows[number] if pretrained_windows else None
            blocks = [FoldedBlock(block, window, dtype=dtype) for block in stage.blocks]
            merge = _Merge(stage.downsample, norm_first=window is None, dtype=dtype) if number else None
            self.stages.append(_Stage(merge, blocks))
            every += blocks
        keep_constants(every)

    def forward(self, x_NHWC: Tensor) -> dict[int, Tensor]:
        """Stage, from 1 -> its raw output, (N, y, x, C) float32, of normalised pixels (N, H, W, 3)."""
        steps = steps_for(x_NHWC.device.type, self.compiled)
        x = self.patches(x_NHWC)
        outputs = {}
        for number, stage in enumerate(self.stages, start=1):
            x = stage.merge(x) if stage.merge else x
            images, height, width, channels = x.shape
            x = x.reshape(images, height * width, channels)
            run = _in_groups if x.device.type == "cpu" else _at_once
            for block in stage.blocks:
                x = run(block, x, window_plan((height, width), block.window, block.shift, x.device), steps)
            x = x.view(images, height, width, channels)
            outputs[number] = x
        return outputs


def _at_once(block: FoldedBlock, x_NLC: Tensor, plan: WindowPlan, steps: Steps) -> Tensor:
    images = len(x_NLC)
    source = F.pad(x_NLC, (0, 0, 0, 1)) if plan.padded else x_NLC
    q, k, v = steps.enter(source, plan.gather, plan.tokens, block.attention_weights)
    mixed = [
        block.mix(q[part], k[part], v[part], split, steps)
        for first, last, split in plan.runs
        for part in (slice(first * images, last * images),)
    ]
    branch = steps.project(torch.cat(mixed) if len(mixed) > 1 else mixed[0], block.branch_weights)
    if images > 1:  # windows before images, as `enter` makes them, to images before windows
        branch = branch.view(-1, images, *branch.shape[1:]).transpose(0, 1)
    return steps.leave(
        x_NLC, branch.reshape(images, -1, branch.shape[-1]), plan.scatter, block.branch_weights
    )


def _in_groups(block: FoldedBlock, x_NLC: Tensor, plan: WindowPlan, steps: Steps) -> Tensor:
    """For one image: each group goes through all of its steps while it is in the cache."""
    tokens, channels = plan.tokens, x_NLC.shape[-1]
    attention, rest = block.attention_weights, block.branch_weights
    source = F.pad(x_NLC, (0, 0, 0, 1)) if plan.padded else x_NLC
    branch = x_NLC.new_empty(1, len(plan.gather), channels, dtype=block.dtype)
    for first, last, split in plan.runs:
        for start, stop in _groups(first, last, max(1, _GROUP_TOKENS // tokens)):
            place = slice(start * tokens, stop * tokens)
            q, k, v = steps.enter(source, plan.gather[place], tokens, attention)
            mixed = block.mix(q, k, v, split, steps).transpose(1, 2).reshape(-1, channels)
            torch.addmm(rest.proj_bias, mixed, rest.proj_weight.t(), out=branch[0, place])
    out = torch.empty_like(x_NLC)
    for start, stop in _groups(0, x_NLC.shape[1], _GROUP_TOKENS):
        part = steps.leave(x_NLC[:, start:stop], branch, plan.scatter[start:stop], rest)
        out[:, start:stop] = part
    return out


def _groups(first: int, last: int, size: int) -> Iterator[tuple[int, int]]:
    """first..last in pieces of at most `size`.

    >>> list(_groups(0, 5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(first, last, size):
        yield start, min(start + size, last)


class _Stage(nn.Module):
    """What brings a map to its size, and the blocks that work on it."""

    def __init__(self, merge: _Merge | None, blocks: Sequence[FoldedBlock]) -> None:
        super().__init__()
        self.merge = merge
        self.blocks: Any = nn.ModuleList(blocks)


class _Patches(nn.Module):
    """4 x 4 pixels to a token: a matrix product on rows of 48 values, and a norm."""

    weight: Tensor
    bias: Tensor

    def __init__(self, embed: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.size = embed.proj.kernel_size
        kernel = embed.proj.weight.permute(0, 2, 3, 1).flatten(1)
        self.register_buffer("weight", kernel.detach().to(dtype), persistent=False)
        self.register_buffer("bias", embed.proj.bias.detach().to(dtype), persistent=False)
        self.norm = _Norm(embed.norm)

    def forward(self, x_NHWC: Tensor) -> Tensor:
        """(N, y, x, C); sizes that the patch does not divide are padded with zeros."""
        (rows, columns), (images, height, width, colours) = self.size, x_NHWC.shape
        x = F.pad(x_NHWC, (0, 0, 0, -width % columns, 0, -height % rows))
        down, across = x.shape[1] // rows, x.shape[2] // columns
        patches = x.view(images, down, rows, across, columns, colours).transpose(2, 3).flatten(3)
        normed: Tensor = self.norm(F.linear(patches.to(self.weight.dtype), self.weight, self.bias))
        return normed


class _Merge(nn.Module):
    """2 x 2 tokens to one of twice the channels; an odd size is padded with a zero row or column."""

    weight: Tensor

    def __init__(self, merging: Any, *, norm_first: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.register_buffer("weight", merging.reduction.weight.detach().to(dtype), persistent=False)
        self.norm = _Norm(merging.norm)

    def forward(self, x_NHWC: Tensor) -> Tensor:
        images, height, width, channels = x_NHWC.shape
        x = F.pad(x_NHWC, (0, 0, 0, width % 2, 0, height % 2))
        x = x.view(images, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels)
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)
        if self.norm_first:
            x = self.norm(x)
        x = F.linear(x.to(self.weight.dtype), self.weight)
        return x.float() if self.norm_first else self.norm(x)


class _Norm(nn.Module):
    """A LayerNorm in float32."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.register_buffer("weight", norm.weight.detach().float(), persistent=False)
        self.register_buffer("bias", norm.bias.detach().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.weight.shape, self.weight, self.bias, NORM_EPS)
