"""Dense prediction transformer's decoder for depth (Ranftl et al., ICCV 2021), on four blocks of a plain ViT.

Source: transformers@5.23 models/dpt/modeling_dpt.py: maps of four blocks -> 1x1 convolutions, to strides of a
quarter, a half, one and two (reassemble) -> 3x3 to 256 -> fusion from the coarsest with residual units ->
3x3, x2, 3x3, ReLU, 1x1. Deviations: class tokens are left out (readout "ignore"), raw maps have a trainable
LayerNorm first, and depth is sigmoid x max_depth in place of a ReLU, which has no unit.

Letters in tensor names: N images, C channels, y x cells, Y X pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from heads.contract import Features, HeadPreset, ValidSizes, check_int
from heads.depth.base import DepthHead, DepthSettings, padded_size
from heads.necks.input_norm import ChannelNorm
from heads.plain.blocks import four_blocks, is_normed
from stores.pyramid import PyramidSpec

_HIDDEN = (96, 192, 384, 768)
"""Channels of the four scales, the finest first, as DPT-Base and -Hybrid."""
_LAST = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class DptSettings(DepthSettings):
    """DPT's decoder."""

    width: int = 256
    """Channels of the fusion."""
    hidden: tuple[int, ...] = _HIDDEN
    """Channels of the four scales, the finest first."""

    def __post_init__(self) -> None:
        DepthSettings.__post_init__(self)  # not super(): slots make a new class of this one
        check_int("width", self.width, 2, 4096)
        check_int("number of hidden sizes", len(self.hidden), 4, 4)
        for size in self.hidden:
            check_int("hidden", size, 1, 8192)


class _Residual(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, and what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x_NCyx: Tensor) -> Tensor:
        found: Tensor = self.second(self.first(x_NCyx.relu()).relu())
        return found + x_NCyx


class _Fusion(nn.Module):
    """One step from coarse to fine: adds the next map, doubles the size."""

    def __init__(self, width: int, *, is_first: bool) -> None:
        """Args: is_first: nothing is added; transformers keeps a residual unit there that it never uses."""
        super().__init__()
        self.of_map = None if is_first else _Residual(width)
        self.of_sum = _Residual(width)
        self.projection = nn.Conv2d(width, width, 1)

    def forward(self, x_NCyx: Tensor, map_NCyx: Tensor | None) -> Tensor:
        if map_NCyx is not None and self.of_map is not None:
            if map_NCyx.shape != x_NCyx.shape:
                map_NCyx = F.interpolate(
                    map_NCyx, size=x_NCyx.shape[2:], mode="bilinear", align_corners=False
                )
            x_NCyx = x_NCyx + self.of_map(map_NCyx)
        x_NCyx = F.interpolate(self.of_sum(x_NCyx), scale_factor=2, mode="bilinear", align_corners=True)
        found: Tensor = self.projection(x_NCyx)
        return found


class DptDepth(DepthHead):
    """See the module."""

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: DptSettings) -> None:
        super().__init__(pyramid, num_classes, settings)
        width, (a, b, _, d) = settings.width, settings.hidden
        self.input_norms = nn.ModuleList(
            nn.Identity() if is_normed(level.name) else ChannelNorm(level.channels) for level in pyramid
        )
        self.projections = nn.ModuleList(
            nn.Conv2d(level.channels, size, 1) for level, size in zip(pyramid, settings.hidden, strict=True)
        )
        self.rescales = nn.ModuleList(
            (
                nn.ConvTranspose2d(a, a, 4, 4),
                nn.ConvTranspose2d(b, b, 2, 2),
                nn.Identity(),
                nn.Conv2d(d, d, 3, 2, padding=1),
            )
        )
        self.convs = nn.ModuleList(
            nn.Conv2d(size, width, 3, padding=1, bias=False) for size in settings.hidden
        )
        self.fusions = nn.ModuleList(
            _Fusion(width, is_first=number == 0) for number in range(len(settings.hidden))
        )
        self.first = nn.Conv2d(width, width // 2, 3, padding=1)
        self.last = nn.Sequential(
            nn.Conv2d(width // 2, _LAST, 3, padding=1), nn.ReLU(), nn.Conv2d(_LAST, 1, 1)
        )

    def logits(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, 1, Y, X) of four maps, before the last activation; Y and X are 16 times the cells."""
        scales = [
            conv(rescale(projection(norm(x_NCyx))))
            for norm, projection, rescale, conv, x_NCyx in zip(
                self.input_norms, self.projections, self.rescales, self.convs, maps, strict=True
            )
        ]
        x_NCyx: Tensor | None = None
        for fusion, map_NCyx in zip(self.fusions, reversed(scales), strict=True):
            x_NCyx = fusion(map_NCyx, None) if x_NCyx is None else fusion(x_NCyx, map_NCyx)
        assert x_NCyx is not None
        x_NCyx = F.interpolate(self.first(x_NCyx), scale_factor=2, mode="bilinear", align_corners=True)
        found: Tensor = self.last(x_NCyx)
        return found

    def forward(self, features: Features, valid_hw: ValidSizes) -> Tensor:
        """Metres, float32 (N, Y, X)."""
        maps = self.select_maps(features, valid_hw)
        size = padded_size(maps[0], next(iter(self.pyramid)).stride_px)
        logits_N1YX = self.logits(maps).float()
        if tuple(logits_N1YX.shape[2:]) != size:
            logits_N1YX = F.interpolate(logits_N1YX, size=size, mode="bilinear", align_corners=False)
        return logits_N1YX[:, 0].sigmoid() * self.depth_settings.max_depth_m


HEADS = {
    "depth-dpt": HeadPreset(
        task="depth",
        levels=(),
        settings=DptSettings(),
        build=DptDepth,
        has_classes=False,
        choose=four_blocks,
    ),
}
