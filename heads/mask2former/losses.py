"""Mask2Former's losses, of all predictions at once (Mask2Former:modeling/criterion.py).

Dims: P predictions, N images, Q queries, K classes and "no object", R matched pairs, I points, C channels.
Only matched masks are computed, a tenth of all, and in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from heads.mask2former.masked_decoder import MaskPredictions
from heads.mask2former.matching import CLASS_WEIGHT, DICE_WEIGHT, MASK_WEIGHT, Matches, match
from heads.mask2former.point_sampling import (
    DrawPoints,
    LabelPoints,
    full_precision,
    sample_maps,
    uncertain_points,
)

NO_OBJECT_WEIGHT = 0.1
_PIECE_BYTES = 512 << 20  # 512 MiB: masks of a piece and three draws for each point they keep


def matched_losses(
    predictions: MaskPredictions, labels_NYX: Tensor, points: int, draw: DrawPoints
) -> dict[str, Tensor]:
    """Weighted float scalars, each summed over the predictions: "loss_class", "loss_mask", "loss_dice".

    Args:
        predictions: of all layers.
        labels_NYX: uint8 at the size of the padded images, 255 for no class: background to every mask.
        points: points of a mask, for the matching and for the losses.
        draw: where points come from.

    Deviation: an image without any class adds no loss; in the reference its queries learn "no object". Raises
    HeadError for a label that is neither a class nor 255.
    """
    matches = match(predictions, labels_NYX, points, draw)
    with torch.autocast(labels_NYX.device.type, enabled=False):
        losses = mask_losses(predictions, matches, LabelPoints(labels_NYX), points, draw)
        return {"loss_class": class_loss(predictions.class_logits_PNQK, matches), **losses}


def class_loss(logits_PNQK: Tensor, matches: Matches) -> Tensor:
    """2 x cross entropy with 0.1 for "no object": weighted means, one a prediction, summed."""
    no_object = logits_PNQK.shape[-1] - 1
    logits_RK = full_precision(logits_PNQK).flatten(0, 2)
    matched = (matches.prediction, matches.image, matches.query)
    label_PNQ = torch.full(logits_PNQK.shape[:-1], no_object, device=logits_PNQK.device)
    label_PNQ[matched] = matches.label
    weight_PNQ = logits_RK.new_full(label_PNQ.shape, NO_OBJECT_WEIGHT) * matches.labelled_N[:, None]
    weight_PNQ.index_put_(matched, logits_RK.new_ones(()))
    loss_PNQ = F.cross_entropy(logits_RK, label_PNQ.flatten(), reduction="none").view_as(weight_PNQ)
    weight_P = weight_PNQ.sum((1, 2)).clamp(min=NO_OBJECT_WEIGHT)
    return CLASS_WEIGHT * ((loss_PNQ * weight_PNQ).sum((1, 2)) / weight_P).sum()


def mask_losses(
    predictions: MaskPredictions, matches: Matches, labels: LabelPoints, points: int, draw: DrawPoints
) -> dict[str, Tensor]:
    """5 x cross entropy and 5 x dice at uncertain points, summed over the pairs, over the number of masks."""
    _, images, queries, _ = predictions.embeddings_PNQC.shape
    row_R = (matches.prediction * images + matches.image) * queries + matches.query
    rows_RC = full_precision(predictions.embeddings_PNQC.flatten(0, 2).index_select(0, row_R))
    features_NCYX = predictions.mask_features_NCYX
    masks = _masks_a_rank(matches.masks, rows_RC.device)  # before any return: all ranks must call it
    if not len(rows_RC):
        nothing = 0 * (full_precision(features_NCYX).sum() + rows_RC.sum())
        return {"loss_mask": nothing, "loss_dice": nothing}
    # Split once: a slice for each image would cost a batch of zeros each in the backward pass.
    features_of = features_NCYX.unbind()
    entropies, dices = [], []
    for start, counts in _pieces(matches.pairs_of_image, features_NCYX.shape[2:], points):
        span = slice(start, start + sum(counts.values()))
        seen = [features_of[image] for image in counts]
        with torch.no_grad():
            logits_RYX = _mask_logits(rows_RC[span], tuple(counts.values()), seen)
            points_RI2 = uncertain_points(logits_RYX, points, draw)
            del logits_RYX
            truth_RI = labels.sample_class(matches.image[span], matches.label[span], points_RI2)
        # Masks and samples are recomputed in the backward pass: only points and truth are kept until then.
        entropy, dice = checkpoint(
            _piece_losses,
            rows_RC[span],
            points_RI2,
            truth_RI,
            tuple(counts.values()),
            *seen,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        entropies.append(entropy)
        dices.append(dice)
    return {
        "loss_mask": MASK_WEIGHT * torch.stack(entropies).sum() / masks,
        "loss_dice": DICE_WEIGHT * torch.stack(dices).sum() / masks,
    }


def _pieces(
    pairs_of_image: Sequence[int], grid: Sequence[int], points: int
) -> Iterator[tuple[int, dict[int, int]]]:
    """Consecutive pairs that fit the memory bound: the first of them, and how many of which image."""
    # Of a pair: its mask twice; coordinates drawn, scaled and kept, and values and indices of the points.
    pair_bytes = 4 * (2 * grid[0] * grid[1] + 20 * points)
    room = most = max(1, _PIECE_BYTES // pair_bytes)
    start, counts = 0, dict[int, int]()
    for image, pairs in enumerate(pairs_of_image):
        while pairs:
            taken = min(pairs, room)
            counts[image] = taken
            pairs, room = pairs - taken, room - taken
            if not room:
                yield start, counts
                start, counts, room = start + most, {}, most
    if counts:
        yield start, counts


def _piece_losses(
    rows_RC: Tensor, points_RI2: Tensor, truth_RI: Tensor, pairs: Sequence[int], *features_CYX: Tensor
) -> tuple[Tensor, Tensor]:
    logits_RYX = _mask_logits(rows_RC, pairs, features_CYX)
    logits_RI = sample_maps(logits_RYX[:, None], points_RI2)[:, 0]
    entropy = F.binary_cross_entropy_with_logits(logits_RI, truth_RI, reduction="none").mean(1).sum()
    shares_RI = logits_RI.sigmoid()
    overlap_R, sizes_R = (shares_RI * truth_RI).sum(1), shares_RI.sum(1) + truth_RI.sum(1)
    return entropy, (1 - (2 * overlap_R + 1) / (sizes_R + 1)).sum()


def _mask_logits(rows_RC: Tensor, pairs: Sequence[int], features_CYX: Sequence[Tensor]) -> Tensor:
    """(R, Y, X): the first pairs[0] rows in the first image, and so on."""
    masks = [
        torch.mm(image_RC, full_precision(x_CYX).flatten(1))
        for image_RC, x_CYX in zip(torch.split(rows_RC, list(pairs)), features_CYX, strict=True)
    ]
    return torch.cat(masks).view(-1, *features_CYX[0].shape[1:])


def _masks_a_rank(masks: int, device: torch.device) -> Tensor | int:
    """Masks of a step, averaged over all ranks; 1 or more."""
    if not (dist.is_available() and dist.is_initialized()):
        return max(1, masks)
    total = torch.tensor(float(masks), device=device)
    dist.all_reduce(total)
    return (total / dist.get_world_size()).clamp(min=1)
