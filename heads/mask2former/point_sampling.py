"""Bilinear sampling of maps at points (detectron2's PointRend, as Mask2Former uses it).

Points are x and y in 0..1 over the whole padded image; between cells they read bilinearly (align_corners
False). Dims: R rows, I points, K classes, Y/X axes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.segmentation.pixel_loss import IGNORE_LABEL

DrawPoints = Callable[[int, int], Tensor]
"""(rows, points) -> uniform points (rows, points, 2)."""
_OVERSAMPLING = 3
_UNCERTAIN_SHARE = 0.75


def uniform_points(generator: torch.Generator | None, device: torch.device) -> DrawPoints:
    """Draws on the generator's device: one on the CPU gives the same points for maps on any device."""
    source = device if generator is None else generator.device

    def draw(rows: int, points: int) -> Tensor:
        return torch.rand(rows, points, 2, generator=generator, device=source).to(device, non_blocking=True)

    return draw


def sample_maps(maps_RCYX: Tensor, points_RI2: Tensor) -> Tensor:
    """Values (R, C, I) of each row's maps at its points; zeros beyond the outer half cell."""
    grid_RI12 = points_RI2.to(maps_RCYX.dtype)[:, :, None].mul(2).sub_(1)
    return F.grid_sample(maps_RCYX, grid_RI12, mode="bilinear", align_corners=False)[..., 0]


def uncertain_points(logits_RYX: Tensor, points: int, draw: DrawPoints) -> Tensor:
    """Points (R, I, 2): for three quarters of them the most uncertain of three times as many draws."""
    rows, uncertain = len(logits_RYX), int(_UNCERTAIN_SHARE * points)
    drawn_RJ2 = draw(rows, _OVERSAMPLING * points)
    certainty_RJ = sample_maps(logits_RYX[:, None], drawn_RJ2)[:, 0].abs_()
    chosen_RI = certainty_RJ.topk(uncertain, dim=1, largest=False, sorted=False).indices
    kept_RI2 = drawn_RJ2.gather(1, chosen_RI[..., None].expand(-1, -1, 2))
    return torch.cat([kept_RI2, draw(rows, points - uncertain)], 1)


class LabelPoints:
    """Samples label maps at points as if each class were a binary mask, without building the masks.

    Of the four pixels around a point, the bilinear weights of those with the class are summed. Pixels beyond
    the map have no class.
    """

    def __init__(self, labels_NYX: Tensor) -> None:
        """`labels` are uint8, 255 for pixels of no class."""
        self._size = labels_NYX.shape[1:]
        self._labels = F.pad(labels_NYX, (1, 1, 1, 1), value=IGNORE_LABEL).flatten()

    def sample_class(self, image_R: Tensor, label_R: Tensor, points_RI2: Tensor) -> Tensor:
        """(R, I): row r reads the mask of class `label` in `image`."""
        corners = self._corners(image_R, points_RI2)
        return sum(
            (weight_RI * (corner_RI == label_R[:, None]) for corner_RI, weight_RI in corners),
            start=points_RI2.new_zeros(()),
        )

    def sample_classes(self, image_R: Tensor, classes: int, points_RI2: Tensor) -> Tensor:
        """(R, classes, I): row r reads the mask of every class in `image`."""
        rows, points, _ = points_RI2.shape
        # The last row collects pixels without a class.
        masks_RKI = points_RI2.new_zeros(rows, classes + 1, points)
        for corner_RI, weight_RI in self._corners(image_R, points_RI2):
            masks_RKI.scatter_add_(1, corner_RI.clamp(max=classes).long()[:, None], weight_RI[:, None])
        return masks_RKI[:, :classes]

    def _corners(self, image_R: Tensor, points_RI2: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Labels (R, I) and bilinear weights (R, I) of the four pixels around each point."""
        height, width = self._size
        x_RI = points_RI2[..., 0] * width - 0.5
        y_RI = points_RI2[..., 1] * height - 0.5
        left_RI, top_RI = x_RI.floor(), y_RI.floor()
        right_share, bottom_share = x_RI - left_RI, y_RI - top_RI
        # The border of one pixel moves every index by one.
        line = width + 2
        first_RI = (top_RI.long() + 1) * line + left_RI.long() + 1
        first_RI += image_R[:, None] * ((height + 2) * line)
        return [
            (self._labels.take(first_RI), (1 - bottom_share) * (1 - right_share)),
            (self._labels.take(first_RI + 1), (1 - bottom_share) * right_share),
            (self._labels.take(first_RI + line), bottom_share * (1 - right_share)),
            (self._labels.take(first_RI + line + 1), bottom_share * right_share),
        ]


def full_precision(x: Tensor) -> Tensor:
    """At least float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def labels_present(labels_NYX: Tensor) -> Tensor:
    """bool (N, 256): which values occur in each map. Never makes the host wait."""
    present_NV = torch.zeros(len(labels_NYX), 256, dtype=torch.bool, device=labels_NYX.device)
    # Equal values written to one place: no atomic sums, and the order does not matter.
    return present_NV.scatter_(1, labels_NYX.flatten(1).long(), True)
