"""Values of levels: from a network's outputs by norms, token selection and masked means.

Letters in tensor names: N images, y and x cells, P tokens before those of patches, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from extract.backbones.frozen_swin import FoldedSwin
from extract.backbones.levels import parse_level
from extract.backbones.registry import BackboneCard
from extract.backbones.timm_pyramid import Outputs, TimmMaps
from stores.pyramid import Level


@dataclass(frozen=True, slots=True)
class LevelReader:
    """Levels of one batch."""

    card: BackboneCard
    network: FoldedSwin | TimmMaps
    outputs: Outputs
    valid_hw: Tensor
    """int (N, 2), sizes of the images in pixels, on the outputs' device."""
    norm: Callable[[Tensor], Tensor]
    """The backbone's last norm, over the last axis."""

    def __call__(self, level: Level, padded_hw: Sequence[int]) -> Tensor:
        """(N, y, x, C) float32; one cell for tokens and pooled vectors."""
        name, outputs = parse_level(level.name), self.outputs
        assert name is not None, level.name
        if name.kind == "stage_block":
            return outputs.blocks[name.stage, name.number].float()
        if name.kind == "pooled" and not self.card.is_swin:
            assert isinstance(self.network, TimmMaps)
            pooled_NC = self.network.pooled(outputs.final, self.valid_hw, (padded_hw[0], padded_hw[1]))
            return pooled_NC[:, None, None]
        if name.kind in ("cls", "reg"):
            tokens_NPC = outputs.prefix[level.stage].float()
            first, last = (0, 1) if name.kind == "cls" else (self.card.class_tokens, None)
            chosen_NPC = tokens_NPC[:, first:last]
            return (self.norm(chosen_NPC) if name.normed else chosen_NPC).flatten(1)[:, None, None]
        x_NyxC = outputs.maps[level.stage].float()
        # A Swin's own classifier reads the mean of its last map after the norm; a pyramid's `avg` is raw.
        swin_vector = self.card.is_swin and name.kind in ("whole_avg", "pooled")
        if swin_vector or (name.normed and name.kind != "whole_avg"):
            x_NyxC = self.norm(x_NyxC)
        if name.kind in ("avg", "whole_avg", "pooled"):
            return mean_of_shown(x_NyxC, self.valid_hw, self.card.last_stride_px)
        return x_NyxC


def mean_of_shown(x_NyxC: Tensor, valid_hw: Tensor, stride_px: int) -> Tensor:
    """Mean over the cells that show a part of the image, (N, 1, 1, C); what padded cells hold is not read.

    Args:
        x_NyxC: float32.
        valid_hw: int (N, 2), sizes of the images in pixels.
        stride_px: pixels of a cell's side.
    """
    shown_N2 = (valid_hw + stride_px - 1) // stride_px
    rows_Ny, columns_Nx = (
        torch.arange(cells, device=x_NyxC.device) < shown_N2[:, axis, None]
        for axis, cells in enumerate(x_NyxC.shape[1:3])
    )
    mask_Nyx1 = (rows_Ny[:, :, None] & columns_Nx[:, None, :])[..., None]
    total_N11C = torch.where(mask_Nyx1, x_NyxC, 0.0).sum((1, 2), keepdim=True)
    return total_N11C / mask_Nyx1.sum((1, 2), keepdim=True)
