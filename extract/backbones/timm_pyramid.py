"""Feature maps, tokens and final features of an unmodified timm model: plain ViTs, Swin V1, pyramids.

Letters in tensor names: N images, H and W pixels or cells, P tokens before those of patches, L tokens,
C channels.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbones.levels import feature_info, last_norm, prefix_tokens
from extract.backbones.out_of_memory import is_out_of_memory
from extract.swin.attention import linear
from extract.swin.timm_swin import stages_of


class SizeRefused(ValueError):
    """The model takes images of another size only, as transformers with learned positions do."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a backbone gives of one batch, before norms and pooling."""

    maps: Mapping[int, Tensor] = field(default_factory=dict)
    """Stage, of a plain model the block -> its raw output, (N, y, x, C)."""
    blocks: Mapping[tuple[int, int], Tensor] = field(default_factory=dict)
    """Stage and block of a Swin -> the block's raw output, (N, y, x, C)."""
    prefix: Mapping[int, Tensor] = field(default_factory=dict)
    """Block of a plain model -> its prefix tokens, raw, (N, P, C)."""
    final: Any = None
    """What the model's own `forward_features` returns, where it was asked for."""


class _Linear(nn.Linear):
    """Without gradients, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class TimmMaps(nn.Module):
    """A trunk in eval mode; float32 weights, autocast where the precision is lower."""

    def __init__(
        self,
        trunk: Any,
        *,
        stages: Sequence[int],
        dtype: torch.dtype,
        pad_px: int = 4,
        blocks: Sequence[tuple[int, int]] = (),
        final: bool = False,
    ) -> None:
        """Args:
        stages: numbers of the wanted stages, or of the blocks of a plain model, from 1.
        pad_px: images are padded with zeros at the bottom and the right to a multiple of it: the official
            Swin pads to its patches of 4, where timm's stem drops the rest; a plain model has larger patches.
        blocks: stages and blocks of a Swin whose outputs are wanted too.
        final: whether the model's final features are wanted.
        """
        super().__init__()
        self.trunk: Any = trunk.float().eval().requires_grad_(False)
        if dtype is torch.float32:  # autocast would not see these products
            for module in self.trunk.modules():
                if type(module) is nn.Linear:
                    module.__class__ = _Linear
        self.stages = tuple(stages)
        self.dtype, self.pad_px, self.final = dtype, pad_px, final
        self._prefix = {"return_prefix_tokens": True} if prefix_tokens(trunk) else {}
        self._caught = threading.local()  # images run in threads, each of which catches its own
        for stage, block in blocks:
            stages_of(self.trunk)[stage - 1].blocks[block - 1].register_forward_hook(
                self._catch(stage, block)
            )
        self._taken: set[tuple[int, int]] = set()
        """Heights and widths that passed before: a later failure at one of them is no refusal of the size."""

    def forward(self, x_NHWC: Tensor) -> dict[int, Tensor]:
        """Stage, of a plain model the block -> its raw output, (N, y, x, C); as of `outputs`."""
        return dict(self.outputs(x_NHWC).maps)

    def outputs(self, x_NHWC: Tensor) -> Outputs:
        """All that was asked for, of normalised pixels (N, H, W, 3)."""
        height, width = x_NHWC.shape[1:3]
        padding = (0, 0, 0, -width % self.pad_px, 0, -height % self.pad_px)
        x_NCHW = F.pad(x_NHWC, padding).permute(0, 3, 1, 2).contiguous()
        self._caught.blocks = {}
        with self._refusing_sizes(x_NCHW), self._precision(x_NCHW.device):
            found = self.trunk.forward_intermediates(
                x_NCHW,
                indices=[stage - 1 for stage in self.stages],
                stop_early=not self.final,
                output_fmt="NCHW",
                intermediates_only=not self.final,
                **self._prefix,
            )
        final, found = found if self.final else (None, found)
        maps, prefix = zip(*found, strict=True) if self._prefix else (found, ())
        return Outputs(
            maps={stage: x.permute(0, 2, 3, 1) for stage, x in zip(self.stages, maps, strict=True)},
            blocks=self._caught.blocks,
            prefix=dict(zip(self.stages, prefix, strict=False)),
            final=final,
        )

    def normed(self, x_NLC: Tensor) -> Tensor:
        """Tokens (N, L, C), or a map with its channels last, after a plain model's last norm; float32."""
        norm = last_norm(self.trunk)
        assert norm is not None
        y_NLC: Tensor = norm(x_NLC.float())
        return y_NLC

    def pooled(self, final: Any, valid_hw: Tensor, padded_hw: tuple[int, int]) -> Tensor:
        """What the model's classifier reads of its final features, (N, C) float32; tokens and cells that
        show nothing of the image, but padding, do not enter.

        Args:
            final: `Outputs.final`.
            valid_hw: int (N, 2), sizes of the images in pixels.
            padded_hw: size of all of them with their padding.

        Raises ValueError for padded images where the final features are no map and no tokens.
        """
        cell_px = feature_info(self.trunk)[-1]["reduction"]
        grid, *grids = (
            (math.ceil(height / cell_px), math.ceil(width / cell_px))
            for height, width in [padded_hw, *valid_hw.cpu().tolist()]
        )
        if all(shown == grid for shown in grids):
            parts = [final]
        else:
            parts = [self._shown(final[i : i + 1], shown, grid) for i, shown in enumerate(grids)]
        with self._precision(valid_hw.device):
            found = [self.trunk.forward_head(x, pre_logits=True).flatten(1).float() for x in parts]
        return torch.cat(found)

    def _shown(self, x: Any, shown: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """Final features of one image, those of padding left out; `shown` of the `grid` cells are image."""
        height, width = shown
        if isinstance(x, Tensor) and x.ndim == 4 and x.shape[2:] == grid:
            return x[:, :, :height, :width]
        if isinstance(x, Tensor) and x.ndim == 4 and x.shape[1:3] == grid:
            return x[:, :height, :width]
        if isinstance(x, Tensor) and x.ndim == 3:
            first = x.shape[1] - math.prod(grid)
            if first < 0:  # class tokens alone
                return x
            map_NyxC = x[:, first:].reshape(len(x), *grid, x.shape[2])
            patches = map_NyxC[:, :height, :width].flatten(1, 2)
            return torch.cat([x[:, :first], patches], 1)
        raise ValueError(
            f"pooled: {type(self.trunk).__name__} cannot leave padding out of its vector; take views without "
            f"padding, such as square crops"
        )

    def _catch(self, stage: int, block: int) -> Any:
        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            self._caught.blocks[stage, block] = output

        return keep

    @contextmanager
    def _refusing_sizes(self, x_NCHW: Tensor) -> Iterator[None]:
        size = (x_NCHW.shape[2], x_NCHW.shape[3])
        try:
            yield
        except (AssertionError, LookupError, ValueError, RuntimeError) as error:
            if size in self._taken or is_out_of_memory(error):
                raise
            raise SizeRefused(
                f"{type(self.trunk).__name__} does not take images of {size[0]}x{size[1]} px ({error}): "
                f"build it for this size with --model-args.img_size, if timm supports that, or choose views "
                f"of its size (--crop-size) or another backbone"
            ) from error
        self._taken.add(size)

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)
