"""Hungarian matching of queries to classes, for all predictions at once.

Mask2Former:modeling/matcher.py. Dims: N images, P predictions, Q queries, R = P x Q rows, K classes, I
points, C channels. Deviation: all predictions of an image are compared at the same points (the reference
draws new ones for each), so that features are sampled once and no full mask is computed.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from heads.errors import HeadError
from heads.mask2former.masked_decoder import MaskPredictions
from heads.mask2former.point_sampling import (
    DrawPoints,
    LabelPoints,
    full_precision,
    labels_present,
    sample_maps,
)
from heads.segmentation.pixel_loss import IGNORE_LABEL

CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 2.0, 5.0, 5.0
_PIECE_BYTES = 256 << 20  # 256 MiB: twice the logits of a piece's rows at the points
_FACTORS = 64
_THREADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Matches:
    """Pairs of a query and a class present in its image, image after image; int64 (pairs,)."""

    image: Tensor
    prediction: Tensor
    query: Tensor
    label: Tensor
    pairs_of_image: tuple[int, ...]
    labelled_N: Tensor
    """bool: images with any pixel of a class."""
    masks: int
    """Classes present, summed over the images."""


def match(predictions: MaskPredictions, labels_NYX: Tensor, points: int, draw: DrawPoints) -> Matches:
    """The pairs of least total cost: one query for every class present, in each prediction.

    With fewer queries than classes present, some classes have none.

    Raises HeadError for a label that is neither a class nor 255.
    """
    classes = predictions.class_logits_PNQK.shape[-1] - 1
    costs_NPQK = assignment_costs(predictions, labels_NYX, draw(len(labels_NYX), points))
    present_NV = labels_present(labels_NYX)
    # One transfer for all that the host needs: each would wait for all work queued before it.
    packed = torch.cat([costs_NPQK.flatten(), present_NV.flatten().to(costs_NPQK.dtype)]).cpu().numpy()
    costs, present = np.split(packed, [costs_NPQK.numel()])
    present = present.reshape(present_NV.shape) > 0
    if (wrong := present[:, classes:IGNORE_LABEL].any(0)).any():
        raise HeadError(
            f"label {classes + int(wrong.argmax())}, expected 0..{classes - 1} or {IGNORE_LABEL} (no class)"
        )
    present = present[:, :classes]
    pairs = solve(costs.reshape(costs_NPQK.shape), present)
    image, prediction, query, label = torch.from_numpy(pairs).to(labels_NYX.device, non_blocking=True)
    return Matches(
        image=image,
        prediction=prediction,
        query=query,
        label=label,
        pairs_of_image=tuple(np.bincount(pairs[0], minlength=len(present)).tolist()),
        labelled_N=present_NV[:, :classes].any(1),
        masks=int(present.sum()),
    )


@torch.no_grad()
def assignment_costs(predictions: MaskPredictions, labels_NYX: Tensor, points_NI2: Tensor) -> Tensor:
    """Costs (N, P, Q, K) of matching each query to each class, present or not.

    2 (- probability of the class) + 5 (mean binary cross entropy) + 5 (dice), the masks compared at an
    image's points. A non-finite cost becomes the largest number, as in the reference, so that a diverging
    run reaches its loss.
    """
    predicted, images, queries, _ = predictions.embeddings_PNQC.shape
    embeddings_NRC = full_precision(predictions.embeddings_PNQC).transpose(0, 1).flatten(1, 2)
    labels = LabelPoints(labels_NYX)
    rows = max(1, _PIECE_BYTES // (2 * embeddings_NRC.element_size() * points_NI2.shape[1]))
    with torch.autocast(labels_NYX.device.type, enabled=False):
        probabilities_PNQK = full_precision(predictions.class_logits_PNQK).softmax(-1)[..., :-1]
        costs_NRK = -CLASS_WEIGHT * probabilities_PNQK.transpose(0, 1).flatten(1, 2)
        classes = costs_NRK.shape[-1]
        image_N = torch.arange(images, device=labels_NYX.device)
        step = max(1, rows // (predicted * queries))
        for first in range(0, images, step):
            span = slice(first, first + step)
            points_nI2 = points_NI2[span]
            features_nCI = sample_maps(full_precision(predictions.mask_features_NCYX[span]), points_nI2)
            masks_nKI = labels.sample_classes(image_N[span], classes, points_nI2)
            for embeddings_nRC, costs_nRK in zip(
                torch.split(embeddings_NRC[span], rows, 1), torch.split(costs_NRK[span], rows, 1), strict=True
            ):
                costs_nRK += _mask_costs(embeddings_nRC, features_nCI, masks_nKI)
    largest = torch.finfo(costs_NRK.dtype).max
    costs_NRK.nan_to_num_(nan=largest, posinf=largest, neginf=largest)
    return costs_NRK.view(images, predicted, queries, classes)


def _mask_costs(embeddings_NRC: Tensor, features_NCI: Tensor, masks_NKI: Tensor) -> Tensor:
    """Weighted cross entropy and dice (N, R, K) of every row with every mask."""
    masks_NIK = masks_NKI.transpose(1, 2)
    logits_NRI = torch.bmm(embeddings_NRC, features_NCI)
    # t softplus(-x) + (1 - t) softplus(x) = softplus(x) - t x, and t x needs no sum over the rows' points.
    inside_NRK = torch.bmm(embeddings_NRC, torch.bmm(features_NCI, masks_NIK))
    # Also softplus(x) = (|x| + x) / 2 - log max(s, 1 - s) with s = sigmoid(x), which the dice needs anyway.
    sums_NR1 = torch.bmm(embeddings_NRC, features_NCI.sum(-1, keepdim=True))
    sums_NR1 += torch.linalg.vector_norm(logits_NRI, 1, -1, keepdim=True)
    shares_NRI = logits_NRI.sigmoid_()
    sizes_NRK = shares_NRI.sum(-1, keepdim=True) + masks_NKI.sum(-1)[:, None]
    dice_NRK = 1 - (2 * torch.bmm(shares_NRI, masks_NIK) + 1) / (sizes_NRK + 1)
    logs_NR1 = _sum_of_logs(shares_NRI.sub_(0.5).abs_().add_(0.5))
    entropy_NRK = sums_NR1 / 2 - logs_NR1 - inside_NRK
    return entropy_NRK.mul_(MASK_WEIGHT / logits_NRI.shape[-1]).add_(dice_NRK, alpha=DICE_WEIGHT)


def _sum_of_logs(x_NRI: Tensor) -> Tensor:
    """(N, R, 1) of numbers in 0.5..1: logarithms of products, of so many that none comes near to zero."""
    whole = x_NRI.shape[-1] // _FACTORS * _FACTORS
    products_NRJ = x_NRI[..., :whole].reshape(*x_NRI.shape[:-1], whole // _FACTORS, _FACTORS).prod(-1)
    logs_NR1 = products_NRJ.log_().sum(-1, keepdim=True)
    return logs_NR1.add_(x_NRI[..., whole:].prod(-1, keepdim=True).log_())


def solve(costs_NPQK: NDArray[Any], present_NK: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Image, prediction, query and class of every pair, int64 (4, pairs), image after image.

    In threads: the solver releases the GIL.
    """

    def solve_image(image: int) -> NDArray[np.int64]:
        labels = np.flatnonzero(present_NK[image])
        pairs = [np.empty((4, 0), np.int64)]
        for prediction, costs_QK in enumerate(costs_NPQK[image]):
            query, column = linear_sum_assignment(costs_QK[:, labels])
            pairs.append(np.stack(np.broadcast_arrays(image, prediction, query, labels[column])))
        return np.concatenate(pairs, 1)

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        return np.concatenate(list(pool.map(solve_image, range(len(costs_NPQK)))), 1)
