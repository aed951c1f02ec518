"""Cross entropy of coarse logits at label resolution, without full-size logits of a whole batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.errors import HeadError

IGNORE_LABEL = 255
_CHUNK_BYTES = 192 << 20  # 192 MiB: one image of 150 classes at 512 px; two such blocks live at once


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
    """Computes loss and gradient of the batch in pieces, so that only coarse maps are kept.

    A piece holds one map of full-size values: scores, then in place their exponentials, then the gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits_NKyx: Tensor, labels_NYX: Tensor) -> Tensor:
        needs_grad = ctx.needs_input_grad[0]
        labels_NYX = labels_NYX.to(logits_NKyx.device, non_blocking=True)
        images = max(1, _CHUNK_BYTES // (4 * logits_NKyx.shape[1] * labels_NYX[0].numel()))
        total = torch.zeros((), device=logits_NKyx.device)
        grads: list[Tensor] = []
        for logits, labels in zip(
            torch.split(logits_NKyx, images), torch.split(labels_NYX, images), strict=True
        ):
            # Sums over classes run fastest where each class is a plane of its own.
            coarse = logits.detach().float().contiguous().requires_grad_(needs_grad)
            with torch.set_grad_enabled(needs_grad), torch.autocast(logits.device.type, enabled=False):
                fine = F.interpolate(coarse, size=labels.shape[1:], mode="bilinear", align_corners=False)
            loss, grad_NKYX = _cross_entropy_in_place(fine.detach(), labels)
            total += loss
            if needs_grad:
                grads.extend(torch.autograd.grad(fine, coarse, grad_NKYX))
        scale = 1 / (labels_NYX != IGNORE_LABEL).sum().clamp(min=1).float()
        ctx.dtype = logits_NKyx.dtype
        if needs_grad:
            ctx.save_for_backward(torch.cat(grads).mul_(scale))
        return total * scale

    @staticmethod
    def backward(ctx: Any, *grad_loss: Tensor) -> tuple[Tensor, None]:
        (grad_NKyx,) = ctx.saved_tensors
        return (grad_NKyx * grad_loss[0]).to(ctx.dtype), None


def _cross_entropy_in_place(scores_NKYX: Tensor, labels_NYX: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over labelled pixels, and its gradient in the memory of the scores."""
    seen_N1YX = (labels_NYX != IGNORE_LABEL)[:, None]
    label_N1YX = labels_NYX[:, None].long() * seen_N1YX  # any class: the pixel does not count
    shift_N1YX = scores_NKYX.amax(1, keepdim=True)
    own_N1YX = scores_NKYX.gather(1, label_N1YX) - shift_N1YX
    total_N1YX = scores_NKYX.sub_(shift_N1YX).exp_().sum(1, keepdim=True)
    loss = ((total_N1YX.log() - own_N1YX) * seen_N1YX).sum()
    grad_NKYX = scores_NKYX.mul_(seen_N1YX / total_N1YX)
    grad_NKYX.scatter_add_(1, label_N1YX, -seen_N1YX.to(grad_NKYX.dtype))
    return loss, grad_NKYX
