"""Scores of an image from those of its sliding windows: the mean where windows overlap, then resized.

As mmseg's slide_inference: class scores before the softmax (of mask heads their scores) are averaged in
pixels of the resized image, then resized bilinearly to the original.

Letters in tensor names: K classes, Y X pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Hw = tuple[int, int]


def is_window(params: Mapping[str, float], valid_hw: Hw) -> bool:
    """Whether a test view shows a part of its resized image."""
    return (params.get("resized_y"), params.get("resized_x")) != valid_hw and "crop_y" in params


class WindowSum:
    """Scores of the windows of one image, added up."""

    def __init__(self, num_classes: int, resized_hw: Hw, device: torch.device) -> None:
        self._sum_KYX = torch.zeros(num_classes, *resized_hw, device=device)
        self._count_YX = torch.zeros(resized_hw, device=device)
        self._seen_YX = np.zeros(resized_hw, bool)  # on the host, which would have to wait for the counts

    def add(self, scores_Kyx: Tensor, corner_yx: Hw) -> None:
        """Args: scores_Kyx: float32, in pixels of the window; corner_yx: its upper left one in the image."""
        y, x = corner_yx
        height, width = scores_Kyx.shape[1:]
        self._sum_KYX[:, y : y + height, x : x + width] += scores_Kyx
        self._count_YX[y : y + height, x : x + width] += 1
        self._seen_YX[y : y + height, x : x + width] = True

    def mean(self, original_hw: Hw) -> Tensor:
        """float32 (K, *original_hw). Raises ValueError where a pixel is in no window."""
        if not self._seen_YX.all():
            raise ValueError("sliding windows do not cover the image: rows of it are missing in the store")
        mean_1KYX = (self._sum_KYX / self._count_YX)[None]
        return F.interpolate(mean_1KYX, size=original_hw, mode="bilinear", align_corners=False)[0]
