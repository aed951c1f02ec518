"""Outputs of a head as tensors of one shape for all images of a batch, as torch.export and ONNX need them.

What `predict` gives image by image, in pixels of the view: images of a batch keep their padding, and their
valid sizes are a tensor. Letters in tensor names: N images, K classes, H and W pixels of the padded view, y
and x cells, D the most detections of an image, M cells of a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.class_scores import RowClassHead
from heads.contract import Head, valid_cells
from heads.depth.base import DepthHead
from heads.detection.base import DetectionHead
from heads.mask2former.head import Mask2Former
from heads.segmentation.base import PixelClassifier
from pipelines.errors import UsageError

Outputs = dict[str, Tensor]
Read = Callable[[Any, Mapping[str, Tensor], Tensor, tuple[int, int]], Outputs]
"""(head, its levels (N, C, y, x), valid sizes int64 (N, 2), padded height and width) -> outputs by name."""


def outputs_of(head: Head) -> Read:
    """How the outputs of a head are read. Raises UsageError for a head of a kind of its own."""
    for kind, read in _READS:
        if isinstance(head, kind):
            return read
    raise UsageError(
        f"--format: {type(head).__name__} has an interface of its own, which has no form as tensors; use "
        "--format safetensors"
    )


def output_names(head: Head) -> tuple[str, ...]:
    """Names of the outputs, in their order."""
    if isinstance(head, DepthHead):
        return ("depth",)
    if not isinstance(head, DetectionHead):
        return ("scores",)
    return ("boxes", "scores", "labels", *(("mask_probs",) if head.settings.masks else ()))


def _row_scores(head: RowClassHead, levels: Mapping[str, Tensor], valid: Tensor, _: object) -> Outputs:
    """scores: float32 (N, K), probabilities."""
    return {"scores": head(levels, valid).float().softmax(-1)}


def _pixel_scores(
    head: PixelClassifier, levels: Mapping[str, Tensor], valid: Tensor, size: tuple[int, int]
) -> Outputs:
    """scores: float32 (N, K, H, W), probabilities; 0 beyond the valid part."""
    logits_NKyx = head(levels, valid).float()
    cells_N2 = valid_cells(next(iter(head.pyramid)), valid)
    assert isinstance(cells_N2, Tensor)
    fine_NKHW = resized_valid(logits_NKyx, cells_N2, valid, size)
    return {"scores": fine_NKHW.softmax(1) * inside(valid, size)[:, None]}


def _mask_scores(
    head: Mask2Former, levels: Mapping[str, Tensor], valid: Tensor, size: tuple[int, int]
) -> Outputs:
    """scores: float32 (N, K, H, W), sums of class probability x mask; 0 beyond the valid part."""
    predictions = head(levels, valid)
    stride_px = next(iter(head.pyramid)).stride_px
    masks_NQyx = torch.einsum(
        "nqc,ncyx->nqyx", predictions.embeddings_PNQC[-1].float(), predictions.mask_features_NCYX.float()
    )
    full = [int(cells * stride_px) for cells in masks_NQyx.shape[2:]]
    masks_NQYX = F.interpolate(masks_NQyx, size=full, mode="bilinear", align_corners=False)
    masks_NQHW = masks_NQYX[..., : size[0], : size[1]].sigmoid()
    probabilities_NQK = predictions.class_logits_PNQK[-1].float().softmax(-1)[..., :-1]
    scores_NKHW = torch.einsum("nqk,nqyx->nkyx", probabilities_NQK, masks_NQHW)
    return {"scores": scores_NKHW * inside(valid, size)[:, None]}


def _depth(head: DepthHead, levels: Mapping[str, Tensor], valid: Tensor, size: tuple[int, int]) -> Outputs:
    """depth: float32 (N, H, W), metres; 0 beyond the valid part."""
    return {"depth": head(levels, valid) * inside(valid, size)}


def _detections(head: DetectionHead, levels: Mapping[str, Tensor], valid: Tensor, _: object) -> Outputs:
    """boxes: float32 (N, D, 4), x1 y1 x2 y2 in pixels of the view; scores: float32 (N, D), best first and 0
    after the last; labels: int64 (N, D), from 0, -1 after the last; mask_probs: float32 (N, D, M, M)."""
    found = head.predict(levels, valid, valid)  # type: ignore[arg-type]  # see Head
    return {name: torch.stack([each[name] for each in found]) for name in output_names(head)}


_READS: tuple[tuple[type, Read], ...] = (
    (RowClassHead, _row_scores),
    (PixelClassifier, _pixel_scores),
    (Mask2Former, _mask_scores),
    (DepthHead, _depth),
    (DetectionHead, _detections),
)


def resized_valid(x_NKyx: Tensor, cells_N2: Tensor, valid_N2: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, K, H, W): the first `cells` of each map resized bilinearly to the first `valid` pixels, as
    F.interpolate with align_corners=False would of each image by itself; beyond them it repeats the border.

    Args:
        cells_N2, valid_N2: int64 (N, 2).
        size: H and W.
    """
    for axis, pixels in enumerate(size):
        low_NP, high_NP, share_NP = _places(cells_N2[:, axis], valid_N2[:, axis], pixels)
        shape = (-1, 1, pixels, 1) if axis == 0 else (-1, 1, 1, pixels)
        kept = list(x_NKyx.shape)
        kept[2 + axis] = pixels
        low, high = (
            x_NKyx.gather(2 + axis, index.reshape(shape).expand(kept)) for index in (low_NP, high_NP)
        )
        share = share_NP.reshape(shape)
        x_NKyx = low * (1 - share) + high * share
    return x_NKyx


def _places(cells_N: Tensor, valid_N: Tensor, pixels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each output pixel both source cells, int64 (N, pixels), and the share of the second, float32."""
    scale_N1 = (cells_N.float() / valid_N.float())[:, None]
    last_N1 = (cells_N - 1)[:, None]
    place_NP = (torch.arange(pixels, device=cells_N.device) + 0.5) * scale_N1 - 0.5
    place_NP = torch.minimum(place_NP.clamp(min=0), last_N1.float())
    low_NP = place_NP.long()
    return low_NP, torch.minimum(low_NP + 1, last_N1), place_NP - low_NP


def inside(valid_N2: Tensor, size: tuple[int, int]) -> Tensor:
    """bool (N, H, W): the pixels of each image that are no padding."""
    rows_NH, columns_NW = (
        torch.arange(pixels, device=valid_N2.device) < valid_N2[:, axis, None]
        for axis, pixels in enumerate(size)
    )
    return rows_NH[:, :, None] & columns_NW[:, None, :]
