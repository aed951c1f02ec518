"""SwinV2 and SwinV2-G as frozen networks: a sequence of steps with folded constants.

Letters in tensor names: N images, H and W cells, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from extract.backbones.device_functions import functions_for
from extract.backbones.timm_pyramid import Outputs
from extract.swin.block import FoldedBlock, keep_constants
from extract.swin.patches import Merge, Patches, PixelNorm
from extract.swin.steps import BlockFunctions, Step
from extract.swin.timm_swin import stages_of
from extract.swin.window_rule import HW

Visit = Callable[[str, nn.Module, Tensor, Tensor], None]
"""Takes the name of a step or block, its module, its input and its output."""


@dataclass(frozen=True, slots=True)
class StepMaker:
    """Builds one step of the network in a given precision."""

    make: Callable[[torch.dtype], nn.Module]
    """Takes the dtype of products; the module maps float32 (N, y, x, C) and `BlockFunctions` to a `Step`."""
    ends_stage: int | None
    """The stage, from 1, whose raw output leaves this step."""
    block: tuple[int, int] | None = None
    """Stage and number in it, both from 1, of a block."""


def step_makers(trunk: Any, *, stages: int, pretrained_windows: Sequence[HW]) -> list[StepMaker]:
    """The steps of a SwinV2 (`swinv2` or `swinv2_cr`): patches, then merges and blocks.

    Args:
        trunk: timm's, with its weights on the CPU; it may be released once the steps are made.
        stages: how many of them, from the first.
        pretrained_windows: one a stage for the family swinv2, none for swinv2_cr.
    """
    makers = [StepMaker(lambda dtype: Patches(trunk.patch_embed, dtype), None)]
    for number, stage in enumerate(stages_of(trunk)[:stages]):
        window = pretrained_windows[number] if pretrained_windows else None
        if number:
            merge = partial(_merge, stage.downsample, window is None)
            makers.append(StepMaker(merge, None))
        for index, block in enumerate(stage.blocks, start=1):
            ends = number + 1 if index == len(stage.blocks) else None
            makers.append(StepMaker(partial(_block, block, window), ends, (number + 1, index)))
    return makers


def _merge(merging: Any, norm_first: bool, dtype: torch.dtype) -> nn.Module:
    return Merge(merging, norm_first=norm_first, dtype=dtype)


def _block(block: Any, window: HW | None, dtype: torch.dtype) -> nn.Module:
    return FoldedBlock(block, window, dtype=dtype)


class FoldedSwin(nn.Module):
    """The steps one after another, up to the last stage wanted."""

    def __init__(
        self,
        steps: Sequence[nn.Module],
        ends: Sequence[int | None],
        *,
        compiled: bool = False,
        taken: Sequence[tuple[int, int] | None] = (),
    ) -> None:
        """Args:
        ends: for each step the stage, from 1, that it ends, or None.
        taken: for each step the block, if its output is wanted as `Outputs.blocks`; none by default.
        compiled: run compiled functions; the first batch of a size then takes a minute.
        """
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.ends = tuple(ends)
        self.taken = tuple(taken) or (None,) * len(self.ends)
        self.compiled = compiled
        self.runs_as: str | None = None
        """Type of device whose functions run it; None: that of its inputs."""
        keep_constants(step for step in steps if isinstance(step, FoldedBlock))

    def shared_constants(self, height: int, width: int, device: torch.device) -> list[object]:
        """What a forward pass of this image size reads from caches, which may evict it; by block."""
        functions = self._functions(device)
        found: list[object] = []
        grid = (height, width)
        for step in self.steps:
            if isinstance(step, FoldedBlock):
                found.append(step.shared_constants(grid, functions, device))
            elif isinstance(step, Patches | Merge):
                rows, columns = step.size
                grid = -(-grid[0] // rows), -(-grid[1] // columns)
        return found

    def forward(self, x_NHWC: Tensor) -> dict[int, Tensor]:
        """Stage -> its raw output, (N, y, x, C) float32, of normalised pixels (N, H, W, 3)."""
        return dict(self.outputs(x_NHWC).maps)

    def outputs(self, x_NHWC: Tensor, visit: Visit | None = None) -> Outputs:
        """Outputs of stages and of the blocks taken, of normalised pixels (N, H, W, 3).

        Args:
            visit: called after each step but the first with its name, module, input and output.
        """
        functions = self._functions(x_NHWC.device)
        return self._of_patches(self.steps[0](x_NHWC, functions), functions, visit)

    @property
    def step_names(self) -> list[str]:
        """Of each step: patches, s<stage>.b<block>, and merge<stage> for what precedes a stage's blocks."""
        names, stage, block = [], 1, 0
        for step, ends in zip(self.steps, self.ends, strict=True):
            if isinstance(step, FoldedBlock):
                block += 1
                names.append(f"s{stage}.b{block}")
            else:
                names.append(f"merge{stage}" if names else "patches")
            if ends:
                stage, block = stage + 1, 0
        return names

    def of_pixels(self, pixels_NHWC: Tensor, valid_hw: Tensor, norm: PixelNorm) -> Outputs:
        """`outputs` of uint8 pixels, normalised with the patches: on a GPU in a third of the time."""
        functions = self._functions(pixels_NHWC.device)
        patches = self.steps[0]
        assert isinstance(patches, Patches)
        return self._of_patches(patches.of_pixels(pixels_NHWC, valid_hw, norm, functions), functions)

    def _functions(self, device: torch.device) -> BlockFunctions:
        return functions_for(self.runs_as or device.type, self.compiled)

    def _of_patches(self, patches: Step, functions: BlockFunctions, visit: Visit | None = None) -> Outputs:
        maps, blocks, (x, low) = {}, {}, patches
        names = self.step_names[1:] if visit else [""] * (len(self.steps) - 1)
        for step, ends, block, name in zip(self.steps[1:], self.ends[1:], self.taken[1:], names, strict=True):
            before = x if visit else None
            x, low = step(x, functions, low)
            if visit and before is not None:
                visit(name, step, before, x)
            if ends:
                maps[ends] = x
            if block:
                blocks[block] = x
        return Outputs(maps, blocks)
