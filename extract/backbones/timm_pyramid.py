"""Feature maps of an unmodified timm model: Swin V1 and any other with a feature pyramid.

Letters in tensor names: N images, H and W pixels or cells, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbones.out_of_memory import is_out_of_memory
from extract.swin.attention import linear


class SizeRefused(ValueError):
    """The model takes images of another size only, as transformers with learned positions do."""


class _Linear(nn.Linear):
    """Without gradients, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class TimmMaps(nn.Module):
    """A trunk in eval mode; float32 weights, autocast where the precision is lower."""

    def __init__(self, trunk: Any, *, stages: Sequence[int], dtype: torch.dtype) -> None:
        """Args: stages: numbers of the wanted stages, from 1."""
        super().__init__()
        self.trunk: Any = trunk.float().eval().requires_grad_(False)
        if dtype is torch.float32:  # autocast would not see these products
            for module in self.trunk.modules():
                if type(module) is nn.Linear:
                    module.__class__ = _Linear
        self.stages = tuple(stages)
        self.dtype = dtype
        self._taken: set[tuple[int, int]] = set()
        """Heights and widths that passed before: a later failure at one of them is no refusal of the size."""

    def forward(self, x_NHWC: Tensor) -> dict[int, Tensor]:
        """Stage -> its raw output, (N, y, x, C), of normalised pixels (N, H, W, 3)."""
        height, width = x_NHWC.shape[1:3]
        # timm's stem drops pixels beyond a multiple of four; the official Swin pads with zeros.
        x = F.pad(x_NHWC, (0, 0, 0, -width % 4, 0, -height % 4)).permute(0, 3, 1, 2).contiguous()
        maps = self._maps(x)
        return {stage: level.permute(0, 2, 3, 1) for stage, level in zip(self.stages, maps, strict=True)}

    def _maps(self, x_NCHW: Tensor) -> Sequence[Tensor]:
        size = (x_NCHW.shape[2], x_NCHW.shape[3])
        try:
            with self._precision(x_NCHW.device):
                maps: Sequence[Tensor] = self.trunk.forward_intermediates(
                    x_NCHW,
                    indices=[stage - 1 for stage in self.stages],
                    stop_early=True,
                    output_fmt="NCHW",
                    intermediates_only=True,
                )
        except (AssertionError, LookupError, ValueError, RuntimeError) as error:
            if size in self._taken or is_out_of_memory(error):
                raise
            raise SizeRefused(
                f"{type(self.trunk).__name__} does not take images of {size[0]}x{size[1]} px ({error}): "
                f"build it for this size with --model-args.img_size, if timm supports that, or choose views "
                f"of its size (--crop-size) or another backbone"
            ) from error
        self._taken.add(size)
        return maps

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)
