"""k nearest neighbours by cosine, each voting with exp(similarity / temperature) for its class.

As DINO's evaluation (facebookresearch/dino@7c446df eval_knn.py) and DINOv2's. Letters in tensor names: N rows
of training, Q queries, C channels, K classes, k neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07
"""DINO's."""
_BLOCK_VALUES = 1 << 26
"""Similarities that are held at a time, 256 MiB."""


def neighbour_votes(
    train_NC: Tensor,
    labels_N: Tensor,
    queries_QC: Tensor,
    *,
    counts: Sequence[int],
    num_classes: int,
    temperature: float = TEMPERATURE,
) -> Mapping[int, Tensor]:
    """The share of the votes of each class, float32 (Q, K), for each number of neighbours.

    Args:
        train_NC, queries_QC: features, of any length; scaled to length 1 here. On one device.
        labels_N: int64, 0..K-1.
        counts: numbers of neighbours, each at most N.
        temperature: above 0; a smaller one lets near neighbours count more.

    Of equally similar rows those of lower numbers are nearer. Products are made of blocks of queries, so that
    memory does not grow with Q.
    """
    train_NC, queries_QC = F.normalize(train_NC, dim=1), F.normalize(queries_QC, dim=1)
    at_once = max(1, _BLOCK_VALUES // len(train_NC))
    parts: dict[int, list[Tensor]] = {count: [] for count in counts}
    for block_QC in torch.split(queries_QC, at_once):
        similarity_Qk, nearest_Qk = _nearest(block_QC @ train_NC.T, max(counts))
        # Relative to the nearest one: exp(1 / 0.01) is more than a float32 holds.
        votes_Qk = ((similarity_Qk - similarity_Qk[:, :1]) / temperature).exp()
        for count, found in parts.items():
            votes_QK = votes_Qk.new_zeros(len(block_QC), num_classes)
            votes_QK.scatter_add_(1, labels_N[nearest_Qk[:, :count]], votes_Qk[:, :count])
            found.append(votes_QK / votes_QK.sum(1, keepdim=True))
    return {count: torch.cat(found) for count, found in parts.items()}


def _nearest(similarity_QN: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Similarities and rows of the nearest, the nearest first, ties by row: `topk` breaks them by chance."""
    kth_Q1 = similarity_QN.topk(count, dim=1).values[:, -1:]
    above_QN, ties_QN = similarity_QN > kth_Q1, similarity_QN == kth_Q1
    room_Q1 = count - above_QN.sum(1, keepdim=True)
    chosen_QN = above_QN | (ties_QN & (ties_QN.cumsum(1) <= room_Q1))
    rows_Qk = chosen_QN.nonzero()[:, 1].reshape(len(similarity_QN), count)
    values_Qk = similarity_QN.gather(1, rows_Qk)
    order_Qk = values_Qk.sort(dim=1, descending=True, stable=True).indices
    return values_Qk.gather(1, order_Qk), rows_Qk.gather(1, order_Qk)
