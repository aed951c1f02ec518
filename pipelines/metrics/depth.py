"""Errors of a depth map against the truth, one image at a time, over the pixels that count.

Source: SwinTransformer/MIM-Depth-Estimation@59ba08d utils/metrics.py; with d = ln predicted - ln true:
RMSE, AbsRel = mean |e| / true, SqRel = mean e^2 / true, RMSElog = sqrt(mean d^2), log10 = mean |d| / ln 10,
SILog = sqrt(mean d^2 - 0.5 (mean d)^2), and d1 to d3, the shares of pixels whose larger ratio of both is
below 1.25, 1.25^2 and 1.25^3. Scores of a split are means over its images. No scale is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

NAMES = ("RMSE", "AbsRel", "SqRel", "RMSElog", "log10", "SILog", "d1", "d2", "d3")
"""In the order of `depth_errors`."""
_LAMBDA = 0.5
_RATIO = 1.25
_EIGEN = (45 / 480, 471 / 480, 41 / 640, 601 / 640)
"""Eigen's crop of NYU: rows 45 to 471 and columns 41 to 601 of 480x640."""
_GARG = (0.40810811, 0.99189189, 0.03594771, 0.96405229)
"""Garg's crop of KITTI, of its bottom centre."""
_CROPS: Mapping[str, tuple[float, float, float, float]] = {
    "none": (0.0, 1.0, 0.0, 1.0),
    "eigen": _EIGEN,
    "garg": _GARG,
}
"""Top, bottom, left and right as shares of the sides."""


def crop_bounds(crop: str, hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rows and columns, each from and to (excluded), that scores are of.

    >>> crop_bounds("eigen", (480, 640)), crop_bounds("garg", (352, 1216))
    ((45, 471, 41, 601), (143, 349, 43, 1172))

    Raises ValueError for an unknown crop.
    """
    if crop not in _CROPS:
        raise ValueError(f"crop {crop!r}: expected one of {', '.join(_CROPS)}")
    top, bottom, left, right = _CROPS[crop]
    # A product such as 471 / 480 * 480 may fall short of its whole number by rounding.
    return tuple(  # type: ignore[return-value]
        math.floor(share * side + 1e-6)
        for share, side in ((top, hw[0]), (bottom, hw[0]), (left, hw[1]), (right, hw[1]))
    )


def counted_pixels(truth_YX: Tensor, crop: str, min_depth_m: float, max_depth_m: float) -> Tensor:
    """bool (Y, X): pixels inside the crop whose true depth lies between the limits, both excluded."""
    top, bottom, left, right = crop_bounds(crop, (truth_YX.shape[0], truth_YX.shape[1]))
    inside = torch.zeros_like(truth_YX, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    return inside & (truth_YX > min_depth_m) & (truth_YX < max_depth_m)


def depth_errors(predicted_YX: Tensor, truth_YX: Tensor, counted_YX: Tensor) -> Tensor:
    """float64 (9,), in the order of NAMES; NaN where no pixel counts. Waits for no device.

    Args:
        predicted_YX, truth_YX: metres; the prediction above 0 where pixels count.
        counted_YX: bool, of the pixels that count.
    """
    count = counted_YX.sum().double()
    predicted, truth = (torch.where(counted_YX, x.double(), 1.0) for x in (predicted_YX, truth_YX))
    predicted = predicted.clamp(min=torch.finfo(torch.float32).tiny)

    def mean(x: Tensor) -> Tensor:
        return torch.where(counted_YX, x, 0.0).sum() / count

    e, d = predicted - truth, predicted.log() - truth.log()
    ratio = torch.maximum(predicted / truth, truth / predicted)
    log_square = mean(d.square())
    return torch.stack(
        [
            mean(e.square()).sqrt(),
            mean(e.abs() / truth),
            mean(e.square() / truth),
            log_square.sqrt(),
            mean(d.abs()) / math.log(10),
            (log_square - _LAMBDA * mean(d).square()).clamp(min=0).sqrt(),
            *(mean((ratio < _RATIO**power).double()) for power in (1, 2, 3)),
        ]
    )
