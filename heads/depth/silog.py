"""Losses of depth maps: the scale-invariant logarithmic error, and DINOv2's with its gradient term.

SILog: sqrt(mean d^2 - 0.5 (mean d)^2) of d = ln gt - ln pred over all measured pixels of a batch together
(Eigen et al., NeurIPS 2014; as MIM-Depth-Estimation@59ba08d utils/criterion.py and GLPN of transformers).
DINOv2's: dinov2@d5c376b dinov2/eval/depth/models/losses. Deviation: its gradient term thins out and compares
pixels; the released code, which is given (N, 1, H, W), does so to images and channels instead.

Letters in tensor names: N images, Y and X pixels. Nothing here waits for a device.
"""

from __future__ import annotations

import torch
from torch import Tensor

LAMBDA = 0.5
_ROOT = 1e-8
"""Added inside the root, whose gradient is infinite at 0."""
_EPS = 1e-3
"""DINOv2's, of a metre."""
_MEAN_WEIGHT = 0.15
_THINNED = (1, 2, 4, 6)
"""Every n-th pixel is compared, for each of these."""


def silog_loss(predicted_NYX: Tensor, truth_NYX: Tensor) -> Tensor:
    """The loss of a batch, a scalar float32; 1e-4 where nothing is measured.

    Args:
        predicted_NYX: metres, above 0.
        truth_NYX: metres; 0 = not measured.
    """
    measured = truth_NYX > 0
    tiny = torch.finfo(torch.float32).tiny
    predicted = predicted_NYX.float().clamp(min=tiny)
    d = torch.where(measured, truth_NYX.float().clamp(min=tiny).log() - predicted.log(), 0.0)
    count = measured.sum().clamp(min=1)
    mean = d.sum() / count
    return (d.square().sum() / count - LAMBDA * mean.square() + _ROOT).clamp(min=_ROOT).sqrt()


def dinov2_depth_loss(
    predicted_NYX: Tensor, truth_NYX: Tensor, max_depth_m: float, warming_up: Tensor
) -> Tensor:
    """sqrt(var g + 0.15 (mean g)^2) of g = ln(pred + 1e-3) - ln(gt + 1e-3), gt up to `max_depth_m`.

    Args:
        warming_up: bool (), whether the mean's term stands alone, as in DINOv2's first 100 steps.
    """
    g, counted = _log_difference(predicted_NYX, truth_NYX, max_depth_m)
    count = counted.sum().clamp(min=2)
    mean = g.sum() / count
    variance = torch.where(counted, g - mean, 0.0).square().sum() / (count - 1)
    spread = torch.where(warming_up, torch.zeros_like(variance), variance)
    return (spread + _MEAN_WEIGHT * mean.square() + _ROOT).sqrt()


def gradient_loss(predicted_NYX: Tensor, truth_NYX: Tensor, max_depth_m: float) -> Tensor:
    """Differences of g between pixels two apart, over the pixels that count, summed over four scales."""
    total = predicted_NYX.new_zeros((), dtype=torch.float32)
    for step in _THINNED:
        g, counted = _log_difference(
            predicted_NYX[:, ::step, ::step], truth_NYX[:, ::step, ::step], max_depth_m
        )
        rows = ((g[:, 2:] - g[:, :-2]).abs() * (counted[:, 2:] & counted[:, :-2])).sum()
        columns = ((g[:, :, 2:] - g[:, :, :-2]).abs() * (counted[:, :, 2:] & counted[:, :, :-2])).sum()
        total = total + (rows + columns) / counted.sum().clamp(min=1)
    return total


def _log_difference(predicted: Tensor, truth: Tensor, max_depth_m: float) -> tuple[Tensor, Tensor]:
    """g, 0 where it does not count, and where it counts."""
    counted = (truth > 0) & (truth <= max_depth_m)
    g = (predicted.float() + _EPS).log() - (truth.float() + _EPS).log()
    return torch.where(counted, g, 0.0), counted
