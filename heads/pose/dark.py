"""Keypoints from heatmaps: the highest cell, moved by one Newton step on the logarithm (DARK, for UDP).

Source: open-mmlab/mmpose@759b39c mmpose/codecs/utils/refinement.py (refine_keypoints_dark_udp) and
codecs/utils/post_processing.py (gaussian_blur, get_heatmap_maximum); Zhang et al., "Distribution-Aware
Coordinate Representation for Human Pose Estimation" (CVPR 2020).

Letters in tensor names: N rows, K keypoints, y and x cells of a heatmap.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL = 11
"""Cells of the blur, as mmpose for a sigma of 2 cells."""
_LOW, _HIGH = 1e-3, 50.0
_EPS = torch.finfo(torch.float32).eps


def decode_heatmaps(heatmaps_NKyx: Tensor, kernel: int = KERNEL) -> tuple[Tensor, Tensor]:
    """Places float64 (N, K, 2), x and y in cells, and scores float32 (N, K), the maxima of the heatmaps.

    A heatmap without a value above 0 has the score 0 and the place of its highest cell.
    """
    heatmaps = heatmaps_NKyx.detach().float()
    width = heatmaps.shape[-1]
    scores_NK, cells_NK = heatmaps.flatten(2).max(-1)
    y_NK, x_NK = cells_NK // width, cells_NK % width
    log = blurred(heatmaps, kernel).clamp(_LOW, _HIGH).log().double()
    padded = F.pad(log, (1, 1, 1, 1), mode="replicate").flatten(2)
    index_NK = (y_NK + 1) * (width + 2) + x_NK + 1

    def at(dy: int, dx: int) -> Tensor:
        return padded.gather(2, (index_NK + dy * (width + 2) + dx)[..., None])[..., 0]

    here, right, left, below, above = at(0, 0), at(0, 1), at(0, -1), at(1, 0), at(-1, 0)
    dx, dy = 0.5 * (right - left), 0.5 * (below - above)
    dxx, dyy = right - 2 * here + left + _EPS, below - 2 * here + above + _EPS
    dxy = 0.5 * (at(1, 1) - right - below + here + here - left - above + at(-1, -1))
    area = dxx * dyy - dxy * dxy
    step_NK2 = torch.stack([dyy * dx - dxy * dy, dxx * dy - dxy * dx], -1) / area[..., None]
    is_peak = (scores_NK > 0) & (area.abs() > 0)
    place_NK2 = torch.stack([x_NK, y_NK], -1).double()
    moved_NK2 = torch.where(is_peak[..., None], place_NK2 - step_NK2, place_NK2)
    return moved_NK2, scores_NK.clamp(min=0)


def blurred(heatmaps_NKyx: Tensor, kernel: int = KERNEL) -> Tensor:
    """Heatmaps under a Gaussian of `kernel` cells, zero beyond their edges, scaled to their old maxima.

    The deviation is the one that OpenCV takes for a kernel of this size: 2 cells for 11.
    """
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    offsets = torch.arange(kernel, device=heatmaps_NKyx.device) - (kernel - 1) / 2
    weights = torch.exp(-offsets.square() / (2 * sigma**2)).to(heatmaps_NKyx.dtype)
    weights = weights / weights.sum()
    flat = heatmaps_NKyx.flatten(0, 1)[:, None]
    half = kernel // 2
    flat = F.conv2d(flat, weights[None, None, :, None], padding=(half, 0))
    soft = F.conv2d(flat, weights[None, None, None, :], padding=(0, half))[:, 0].view_as(heatmaps_NKyx)
    peaks = heatmaps_NKyx.amax((-2, -1), keepdim=True)
    return soft * (peaks / soft.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(soft.dtype).tiny))
