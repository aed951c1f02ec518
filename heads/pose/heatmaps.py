"""Target heatmaps of keypoints, made on the device: Gaussians around their sub-pixel places.

Source: open-mmlab/mmpose@759b39c mmpose/codecs/utils/gaussian_heatmap.py (generate_udp_gaussian_heatmaps) and
codecs/udp_heatmap.py, unbiased data processing (UDP): the outer pixel centres of view and heatmap meet.

Letters in tensor names: N rows, K keypoints, y and x cells of a heatmap.
"""

from __future__ import annotations

import torch
from torch import Tensor

SIGMA = 2.0
"""Of the Gaussians, in cells; they end three of it around their centre cell."""


def cells_of_pixels(points_NK2: Tensor, view_hw: tuple[int, int], map_hw: tuple[int, int]) -> Tensor:
    """Places in a view, x and y from the centre of its first pixel, in cells of its heatmap: (N, K, 2)."""
    scale = [max(map_hw[axis] - 1, 1) / max(view_hw[axis] - 1, 1) for axis in (1, 0)]
    return points_NK2 * points_NK2.new_tensor(scale)


def pixels_of_cells(points_NK2: Tensor, view_hw: tuple[int, int], map_hw: tuple[int, int]) -> Tensor:
    """The inverse of `cells_of_pixels`."""
    return cells_of_pixels(points_NK2, map_hw, view_hw)


def target_heatmaps(
    keypoints_NK3: Tensor, view_hw: tuple[int, int], map_hw: tuple[int, int], sigma: float = SIGMA
) -> tuple[Tensor, Tensor]:
    """Heatmaps float32 (N, K, y, x) and weights float32 (N, K).

    Args:
        keypoints_NK3: x, y in pixels of the view, and visibility; of 0 the weight is 0.
        view_hw: of the view in pixels.
        map_hw: of the heatmaps in cells.

    Of a keypoint whose window of 6 sigma + 1 cells lies beside the map the weight is 0 too.
    """
    mu_NK2 = cells_of_pixels(keypoints_NK3[..., :2].float(), view_hw, map_hw)
    # As numpy's astype(int64), which truncates: int(mu + 0.5).
    centre_NK2 = (mu_NK2 + 0.5).trunc()
    radius = 3 * sigma
    first, last = centre_NK2 - radius, centre_NK2 + radius + 1
    sides_2 = mu_NK2.new_tensor([map_hw[1], map_hw[0]])
    inside_NK = ((first < sides_2) & (last >= 0)).all(-1)
    weights_NK = ((keypoints_NK3[..., 2] > 0) & inside_NK).float()
    parts = []
    for axis, cells in ((1, map_hw[0]), (0, map_hw[1])):
        place = torch.arange(cells, device=mu_NK2.device, dtype=mu_NK2.dtype)
        distance = place - mu_NK2[..., axis, None]
        within = (place - centre_NK2[..., axis, None]).abs() <= radius
        parts.append(torch.exp(-distance.square() / (2 * sigma**2)) * within)
    heatmaps_NKyx = parts[0][..., :, None] * parts[1][..., None, :]
    return heatmaps_NKyx * weights_NK[..., None, None], weights_NK
