"""Cross entropy of coarse logits at label resolution, without full-size logits of a whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from heads.errors import HeadError
from heads.segmentation.row_bands import row_weights

IGNORE_LABEL = 255
_BAND_BYTES = 192 << 20
"""192 MiB of full-size scores: one image of 150 classes at 512 px; two such blocks live at once."""
_CPU_BAND_BYTES = 2 << 20
"""2 MiB: a band stays in the cache from its interpolation to its gradient."""


def pixel_cross_entropy(logits_NKyx: Tensor, labels_NYX: Tensor) -> Tensor:
    """Mean cross entropy over labelled pixels; the logits are resized bilinearly (align_corners False) first.

    Args:
        logits_NKyx: class scores on the head's grid, any floating point; computed in float32 from there on.
        labels_NYX: uint8, classes 0..K-1 and 255 for ignored pixels.
    Returns:
        A float32 scalar; 0 with zero gradients where every pixel is ignored.
    Raises HeadError for a label outside both ranges if the labels are on the CPU (on a GPU the check would
    stall the step; torch's own device assertion fails instead).

    Deviation: mmseg divides by all pixels, ignored ones too. Here, as in torch and transformers, only
    labelled pixels count, so that the loss of an image does not depend on how much of its crop is padding.
    """
    classes = logits_NKyx.shape[1]
    if labels_NYX.device.type == "cpu":
        wrong = (labels_NYX >= classes) & (labels_NYX != IGNORE_LABEL)
        if wrong.any():
            raise HeadError(
                f"label {int(labels_NYX[wrong][0])}, expected 0..{classes - 1} or {IGNORE_LABEL} (ignored)"
            )
    loss: Tensor = _ResizedCrossEntropy.apply(logits_NKyx, labels_NYX)
    return loss


class _ResizedCrossEntropy(torch.autograd.Function):
    """Computes loss and gradient in bands of rows of an image, so that only coarse maps are kept.

    A band holds one map of full-size values: scores, then in place their exponentials, then the gradient.
    Bilinear resizing is a product along each axis, and so is its gradient: the same sums as those of torch's
    own kernels, whose gradient is a scalar loop on a CPU and atomic additions on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, logits_NKyx: Tensor, labels_NYX: Tensor) -> Tensor:
        needs_grad = ctx.needs_input_grad[0]
        labels_NYX = labels_NYX.to(logits_NKyx.device, non_blocking=True)
        total = torch.zeros((), device=logits_NKyx.device)
        with torch.autocast(logits_NKyx.device.type, enabled=False):
            # Sums over classes run fastest where each class is a plane of its own.
            coarse_NKyx = logits_NKyx.detach().float().contiguous()
            _, across_Xx = row_weights(
                coarse_NKyx.shape[3], labels_NYX.shape[2], 0, labels_NYX.shape[2], coarse_NKyx.device
            )
            wide_NKyX = torch.matmul(coarse_NKyx, across_Xx.t())
            grad_NKyX = torch.zeros_like(wide_NKyX) if needs_grad else None
            for rows, source, weights_ry in _bands(wide_NKyX, labels_NYX.shape[1]):
                for image, labels_rX in enumerate(labels_NYX[:, rows]):
                    fine_KrX = torch.matmul(weights_ry, wide_NKyX[image, :, source])
                    loss, fine_grad_KrX = _cross_entropy_in_place(fine_KrX, labels_rX)
                    total += loss
                    if grad_NKyX is not None:
                        grad_NKyX[image, :, source] += torch.matmul(weights_ry.t(), fine_grad_KrX)
            scale = 1 / (labels_NYX != IGNORE_LABEL).sum().clamp(min=1).float()
            ctx.dtype = logits_NKyx.dtype
            if grad_NKyX is not None:
                ctx.save_for_backward(torch.matmul(grad_NKyX, across_Xx).mul_(scale))
        return total * scale

    @staticmethod
    def backward(ctx: Any, *grad_loss: Tensor) -> tuple[Tensor, None]:
        (grad_NKyx,) = ctx.saved_tensors
        return (grad_NKyx * grad_loss[0]).to(ctx.dtype), None


def _bands(wide_NKyX: Tensor, height: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Output rows, the source rows that they read, and the weights of these (r, y); see `row_weights`."""
    classes, here, width = wide_NKyX.shape[1:]
    limit = _CPU_BAND_BYTES if wide_NKyX.is_cpu else _BAND_BYTES
    most = max(1, limit // (4 * classes * width))
    for first in range(0, height, most):
        stop = min(first + most, height)
        lowest, weights_ry = row_weights(here, height, first, stop, wide_NKyX.device)
        yield slice(first, stop), slice(lowest, lowest + weights_ry.shape[1]), weights_ry


def _cross_entropy_in_place(scores_KrX: Tensor, labels_rX: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over labelled pixels, and its gradient in the memory of the scores."""
    seen_1rX = (labels_rX != IGNORE_LABEL)[None]
    label_1rX = labels_rX[None].long() * seen_1rX  # any class: the pixel does not count
    shift_1rX = scores_KrX.amax(0, keepdim=True)
    own_1rX = scores_KrX.gather(0, label_1rX) - shift_1rX
    total_1rX = scores_KrX.sub_(shift_1rX).exp_().sum(0, keepdim=True)
    loss = ((total_1rX.log() - own_1rX) * seen_1rX).sum()
    grad_KrX = scores_KrX.mul_(seen_1rX / total_1rX)
    grad_KrX.scatter_add_(0, label_1rX, -seen_1rX.to(grad_KrX.dtype))
    return loss, grad_KrX
