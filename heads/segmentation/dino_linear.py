"""DINOv3's linear head: block maps of a plain ViT concatenated, BatchNorm, dropout, one 1x1 convolution.

The maps are those after the backbone's norm (`b<i>n`): of the last block, or of four (n/4, n/2, 3n/4 and n;
of ViT-L blocks 5, 12, 18 and 24). `use_cls` adds the class token of each block as a constant map. BatchNorm
runs over all processes where Lightning's sync_batchnorm asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.contract import Features, HeadPreset, SizeYX, check_bool, check_int, check_probability
from heads.errors import HeadError
from heads.necks.channel_dropout import drop_channels
from heads.plain.blocks import block_maps
from heads.segmentation.base import PixelClassifier, build_classifier
from stores.pyramid import PyramidSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class DinoLinearSettings:
    """Raises HeadError for a value out of range."""

    blocks: int = 0
    """Maps of so many last blocks among those that the store holds, 1..64; 0: of all of them."""
    use_cls: bool = False
    """Also read each block's class token, as a constant map."""
    dropout: float = 0.1
    """Probability of dropping a channel before the classifier, 0..0.9."""

    def __post_init__(self) -> None:
        check_int("blocks", self.blocks, 0, 64)
        check_bool("use_cls", self.use_cls)
        check_probability("dropout", self.dropout)


class DinoLinear(PixelClassifier):
    """One linear layer over the normed channels of all maps."""

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: DinoLinearSettings) -> None:
        super().__init__(pyramid, num_classes)
        self.dropout = settings.dropout
        channels = sum(level.channels for level in pyramid)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = build_classifier(channels, num_classes)

    def forward(
        self, features: Features, valid_hw: Sequence[SizeYX], generator: torch.Generator | None = None
    ) -> Tensor:
        maps = self.select_maps(features, valid_hw)
        grid = maps[0].shape[2:]
        x_NCyx = self.norm(torch.cat([_on_grid(each, grid) for each in maps], 1))
        if self.training:
            x_NCyx = drop_channels(x_NCyx, self.dropout, generator)
        scores_NKyx: Tensor = self.classifier(x_NCyx)
        return scores_NKyx


def _on_grid(x_NCyx: Tensor, grid: Sequence[int]) -> Tensor:
    """A map resized to the first one's grid; a token everywhere the same."""
    if x_NCyx.shape[2:] == (1, 1):
        return x_NCyx.expand(-1, -1, *grid)
    if tuple(x_NCyx.shape[2:]) == tuple(grid):
        return x_NCyx
    return F.interpolate(x_NCyx, size=tuple(grid), mode="bilinear", align_corners=False)


def dino_levels(pyramid: PyramidSpec, settings: DinoLinearSettings) -> tuple[str, ...]:
    """The block maps that the head reads, and their class tokens where it wants them.

    Raises HeadError where they are not there.
    """
    maps = [level.name for level in block_maps(pyramid)][-settings.blocks or None :]
    if len(maps) < max(1, settings.blocks):
        raise HeadError(
            f"needs {settings.blocks or 'one or more'} block maps of a plain ViT, such as LEVELS=b3n,b6n,b9n,"
            f"b12n; available: {', '.join(pyramid.names)}"
        )
    tokens = [name for each in maps if settings.use_cls for name in _token_of(each, pyramid)]
    return tuple(name for name in pyramid.names if name in (*maps, *tokens))


def _token_of(block: str, pyramid: PyramidSpec) -> tuple[str]:
    name = re.sub("^b", "cls", block)
    if name not in pyramid:
        raise HeadError(f"use_cls needs level {name} beside {block}; available: {', '.join(pyramid.names)}")
    return (name,)


HEADS = {
    "dino-linear": HeadPreset(
        task="segmentation",
        levels=(),
        settings=DinoLinearSettings(),
        build=DinoLinear,
        choose=dino_levels,
    )
}
