"""Base of depth heads: stored depth in, metres of every pixel out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.contract import Features, Head, SizeYX, Targets, ValidSizes, check_output_sizes
from heads.depth.silog import silog_loss
from heads.errors import HeadError
from stores.pyramid import PyramidSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthSettings:
    """What all depth heads need to know of their data; train-head takes it from the data set."""

    max_depth_m: float = 10.0
    """The largest depth in metres."""
    min_depth_m: float = 1e-3
    """The smallest that counts, in metres."""
    units_per_m: float = 1000.0
    """Values of one metre in stored depth maps: 1000 for millimetres."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_depth_m < self.max_depth_m:
            raise HeadError(
                f"max_depth_m is {self.max_depth_m!r}, expected more than min_depth_m {self.min_depth_m!r}"
            )
        if not self.units_per_m > 0:
            raise HeadError(f"units_per_m is {self.units_per_m!r}, expected more than 0")


class DepthHead(Head):
    """A head that is trained on depth maps; `forward(features, valid_hw)` gives metres of every pixel of the
    padded view, float32 (N, Y, X), in 0..max_depth_m."""

    task = "depth"

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: DepthSettings) -> None:
        super().__init__(pyramid, num_classes)
        self.depth_settings = settings

    @property
    def target_names(self) -> tuple[str, ...]:
        return ("depth",)

    @abstractmethod
    def forward(self, features: Features, valid_hw: ValidSizes) -> Tensor:
        """Metres, float32 (N, Y, X)."""

    def losses(
        self,
        features: Features,
        targets: Targets,
        valid_hw: Sequence[SizeYX],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """{"loss_depth": SILog over all pixels of the batch}; `targets[i]["depth"]` is uint16 (Y, X) in
        stored units, 0 = not measured."""
        predicted_NYX, truth_NYX = self._both(features, targets, valid_hw)
        return {"loss_depth": silog_loss(predicted_NYX, truth_NYX)}

    def _both(
        self, features: Features, targets: Targets, valid_hw: Sequence[SizeYX]
    ) -> tuple[Tensor, Tensor]:
        """Predicted and true metres, float32 (N, Y, X). Raises HeadError for sizes that differ."""
        predicted_NYX = self(features, valid_hw)
        stored_NYX = torch.stack([target["depth"] for target in targets])
        if stored_NYX.shape != predicted_NYX.shape:
            raise HeadError(
                f"depth maps of shape {tuple(stored_NYX.shape)}, expected {tuple(predicted_NYX.shape)}"
            )
        stored_NYX = stored_NYX.to(predicted_NYX.device, non_blocking=True)
        return predicted_NYX, stored_NYX.to(torch.float32) / self.depth_settings.units_per_m

    def predict(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> list[Tensor]:
        """Metres, float32 (*output_hw[i]) of each image: its valid pixels, resized bilinearly where the size
        differs."""
        check_output_sizes(valid_hw, output_hw)
        with torch.no_grad():
            depth_NYX = self(features, valid_hw)
            return [
                resized_map(depth_YX[:height, :width], size)
                for depth_YX, (height, width), size in zip(depth_NYX, valid_hw, output_hw, strict=True)
            ]


def resized_map(depth_YX: Tensor, size: SizeYX) -> Tensor:
    """A map at another size, bilinearly; itself where the size is the same."""
    if tuple(depth_YX.shape) == tuple(size):
        return depth_YX
    return F.interpolate(depth_YX[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def padded_size(map_NCyx: Tensor, stride_px: float) -> SizeYX:
    """Size in pixels of the view that a map of this stride covers."""
    height, width = (round(cells * stride_px) for cells in map_NCyx.shape[-2:])
    return height, width
