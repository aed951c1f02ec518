"""Depth by three transposed convolutions of 32 channels, the head of MIM-Depth-Estimation.

Source: SwinTransformer/MIM-Depth-Estimation@59ba08d models/model.py (kernel 2, 32 filters; 002 (arXiv
2205.13543), appendix: "the same as the head of the pose estimation"). The last map after a LayerNorm -> 3 x
(transposed 2x2, stride 2, 32 channels, BN, ReLU) -> 3x3 to an eighth of the map's channels, BN, ReLU ->
bilinear x2, x2 -> 3x3, ReLU -> 3x3 to 1; depth = sigmoid x max_depth. With SwinV2-B 325,441 parameters beside
the norm. Maps of a stride other than 32 are resized to the view's size in one bilinear step.

Letters in tensor names: N images, C channels, y x cells, Y X pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from heads.contract import Features, HeadPreset, ValidSizes, check_choice, check_int
from heads.depth.base import DepthHead, DepthSettings, padded_size
from heads.last_map import require_last_map
from heads.necks.input_norm import INPUT_NORMS, build_input_norms
from heads.plain.blocks import is_normed
from stores.pyramid import PyramidSpec

_DECONVS = 3
_STD = 1e-3
"""Of first weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeconvSettings(DepthSettings):
    """Transposed convolutions."""

    deconv_width: int = 32
    """Channels of the transposed convolutions."""
    width: int | None = None
    """Channels of the last convolutions. Default: an eighth of the map's."""
    input_norm: str = "ln"
    """Norm of a map that has none behind it: ln, ln_no_affine or none."""

    def __post_init__(self) -> None:
        DepthSettings.__post_init__(self)  # not super(): slots make a new class of this one
        check_int("deconv_width", self.deconv_width, 1, 4096)
        if self.width is not None:
            check_int("width", self.width, 1, 4096)
        check_choice("input_norm", self.input_norm, INPUT_NORMS)


class DeconvDepth(DepthHead):
    """See the module."""

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: DeconvSettings) -> None:
        super().__init__(pyramid, num_classes, settings)
        (level,) = pyramid
        has_norm = is_normed(level.name) or level.name.endswith("n")
        (self.input_norm,) = build_input_norms("none" if has_norm else settings.input_norm, [level.channels])
        width = max(1, level.channels // 8) if settings.width is None else settings.width
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((level.channels, *[settings.deconv_width] * _DECONVS)):
            layers += [
                nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        layers += [nn.Conv2d(settings.deconv_width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        self.decoder = nn.Sequential(*layers)
        self.last = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Features, valid_hw: ValidSizes) -> Tensor:
        """Metres, float32 (N, Y, X)."""
        (x_NCyx,) = self.select_maps(features, valid_hw)
        (level,) = self.pyramid
        size = padded_size(x_NCyx, level.stride_px)
        x_NCyx = self.decoder(self.input_norm(x_NCyx))
        steps = 2 if size[0] == 4 * x_NCyx.shape[2] and size[1] == 4 * x_NCyx.shape[3] else 1
        for step in range(steps, 0, -1):
            to = [side // step for side in size]
            x_NCyx = F.interpolate(x_NCyx, size=to, mode="bilinear", align_corners=False)
        logits_N1YX: Tensor = self.last(x_NCyx)
        return logits_N1YX[:, 0].float().sigmoid() * self.depth_settings.max_depth_m


HEADS = {
    "depth-deconv2x32": HeadPreset(
        task="depth",
        levels=(),
        settings=DeconvSettings(),
        build=DeconvDepth,
        has_classes=False,
        choose=require_last_map,
    ),
}
