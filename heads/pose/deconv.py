"""Transposed convolutions from the last map to a heatmap for each keypoint (Simple Baselines, ECCV 2018).

Source: open-mmlab/mmpose@759b39c mmpose/models/heads/heatmap_heads/heatmap_head.py and losses/
heatmap_loss.py. A norm of the frozen map comes first: heads/necks/input_norm.py. The number of transposed
convolutions follows from the map's stride: heatmaps have about a quarter of the view's sides, 64x64 of
256x256 pixels.

Letters in tensor names: N rows, C channels, K keypoints, y and x cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from heads.contract import (
    Features,
    Head,
    HeadPreset,
    SizeYX,
    Targets,
    check_choice,
    check_int,
    check_output_sizes,
    valid_cells,
)
from heads.errors import HeadError
from heads.last_map import require_last_map
from heads.necks.input_norm import INPUT_NORMS, build_input_norms
from heads.pose.heatmaps import target_heatmaps
from stores.pyramid import PyramidSpec

HEATMAP_STRIDE_PX = 4
_INIT_STD = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class DeconvSettings:
    """Settings of a head of transposed convolutions."""

    kernel: int = 4
    """Cells of a transposed convolution: 4, or 2 without overlap."""
    width: int = 256
    """Its channels."""
    input_norm: str = "ln"

    def __post_init__(self) -> None:
        check_choice("kernel", str(self.kernel), ("2", "4"))
        check_int("width", self.width, 1, 4096)
        check_choice("input_norm", self.input_norm, INPUT_NORMS)


class DeconvHead(Head):
    """Heatmaps of keypoints: `num_classes` is their number."""

    task = "pose"

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: DeconvSettings) -> None:
        super().__init__(pyramid, num_classes)
        self.settings = settings
        (level,) = pyramid
        self.doublings = max(0, round(math.log2(level.stride_px / HEATMAP_STRIDE_PX)))
        (self.norm,) = build_input_norms(settings.input_norm, [level.channels])
        widths = [level.channels, *[settings.width] * self.doublings]
        self.deconvs = nn.Sequential(*(_doubling(a, b, settings.kernel) for a, b in pairwise(widths)))
        self.heatmaps = nn.Conv2d(widths[-1], num_classes, 1)
        nn.init.normal_(self.heatmaps.weight, std=_INIT_STD)
        assert self.heatmaps.bias is not None
        nn.init.zeros_(self.heatmaps.bias)

    @property
    def target_names(self) -> tuple[str, ...]:
        return ("keypoints",)

    def forward(self, features: Features, valid_hw: Sequence[SizeYX] | Tensor) -> Tensor:
        """Heatmaps (N, K, y, x) of the padded view."""
        (x_NCyx,) = self.select_maps(features, valid_hw)
        heatmaps_NKyx: Tensor = self.heatmaps(self.deconvs(self.norm(x_NCyx)))
        return heatmaps_NKyx

    def losses(
        self,
        features: Features,
        targets: Targets,
        valid_hw: Sequence[SizeYX],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """{"loss_heatmap": squared error, 0 for keypoints without weight, over the number of all values}.

        `targets[i]["keypoints"]` is float32 (K, 3): x, y in pixels of the view and visibility. The heatmaps
        are made on the head's device.
        Raises HeadError for another number of keypoints.
        """
        found_NKyx = self(features, valid_hw).float()
        keypoints_NK3 = torch.stack([target["keypoints"] for target in targets])
        if keypoints_NK3.shape[1:] != (self.num_classes, 3):
            raise HeadError(
                f"keypoints of shape {tuple(keypoints_NK3.shape[1:])}, expected ({self.num_classes}, 3)"
            )
        keypoints_NK3 = keypoints_NK3.to(found_NKyx.device, non_blocking=True)
        total = found_NKyx.new_zeros(())
        for size, rows in _by_size(valid_hw).items():
            y, x = self._cells(size)
            wanted, weights_NK = target_heatmaps(keypoints_NK3[rows], size, (y, x))
            errors = (found_NKyx[rows, :, :y, :x] - wanted).square() * weights_NK[..., None, None]
            total = total + errors.mean((1, 2, 3)).sum()
        return {"loss_heatmap": total / len(valid_hw)}

    def predict(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> list[Tensor]:
        """The heatmaps of each row, float32 (K, y, x), of the part of its view that is image; of `output_hw`
        only the length is used. heads/pose/dark.py makes keypoints of them."""
        check_output_sizes(valid_hw, output_hw)
        with torch.no_grad():
            found_NKyx = self(features, valid_hw).float()
        sizes = [self._cells(size) for size in valid_hw]
        return [maps[:, :y, :x] for maps, (y, x) in zip(found_NKyx, sizes, strict=True)]

    def _cells(self, valid_hw: SizeYX) -> SizeYX:
        """Of the heatmaps of a view of this size."""
        (cells,) = valid_cells(next(iter(self.pyramid)), [valid_hw])
        return int(cells[0]) << self.doublings, int(cells[1]) << self.doublings


def _doubling(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    deconv = nn.ConvTranspose2d(inputs, outputs, kernel, stride=2, padding=(kernel - 2) // 2, bias=False)
    nn.init.normal_(deconv.weight, std=_INIT_STD)
    return nn.Sequential(deconv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _by_size(valid_hw: Sequence[SizeYX]) -> dict[SizeYX, list[int]]:
    found: dict[SizeYX, list[int]] = {}
    for row, (height, width) in enumerate(valid_hw):
        found.setdefault((height, width), []).append(row)
    return found


HEADS = {
    "pose-deconv4x256": HeadPreset(
        task="pose", levels=(), choose=require_last_map, settings=DeconvSettings(), build=DeconvHead
    ),
    "pose-deconv2x32": HeadPreset(
        task="pose",
        levels=(),
        choose=require_last_map,
        settings=DeconvSettings(kernel=2, width=32),
        build=DeconvHead,
    ),
}
"""The first is Simple Baselines'; the second has the kernel and width that "Revealing the Dark Secrets of
Masked Image Modeling" prints for its depth head, which it calls the same as its pose head."""
