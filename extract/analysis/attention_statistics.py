"""Attention statistics of a block: distance in pixels, entropy, KL divergence between heads, and leak.

Distance as in Dosovitskiy et al. 2021, appendix D.7: the mean over queries of the distance to each key,
weighted by the attention. KL of a head is the mean over the other heads j of KL(head || j). Everything is
computed from log_softmax of logits, never from ln(A + eps): SwinV2's logits reach 116, and float32
probabilities underflow to 0.

Letters in tensor names: G groups (windows or images), H heads, Q queries of a group, T keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class AttentionSums:
    """Sums over queries, float64; `+` joins those of several images."""

    distance_H: Tensor
    entropy_H: Tensor
    relative_entropy_H: Tensor
    """Entropy divided by the logarithm of the number of keys that a query may attend to."""
    kl_HH: Tensor
    """Row h, column j: KL(h || j)."""
    leak_H: Tensor
    """Mass on keys that were left out: padding, other regions of a rolled map, prefix tokens."""
    queries: int

    def __add__(self, other: AttentionSums) -> AttentionSums:
        return AttentionSums(
            self.distance_H + other.distance_H,
            self.entropy_H + other.entropy_H,
            self.relative_entropy_H + other.relative_entropy_H,
            self.kl_HH + other.kl_HH,
            self.leak_H + other.leak_H,
            self.queries + other.queries,
        )

    def means(self) -> LayerStatistics:
        """Means over the queries."""
        heads = len(self.distance_H)
        kl_HH = self.kl_HH / self.queries
        others = max(1, heads - 1)
        return LayerStatistics(
            distance_px=(self.distance_H / self.queries).tolist(),
            entropy_nats=(self.entropy_H / self.queries).tolist(),
            relative_entropy=(self.relative_entropy_H / self.queries).tolist(),
            kl_nats=((kl_HH.sum(1) - kl_HH.diagonal()) / others).tolist(),
            kl_matrix=kl_HH.tolist(),
            leak=(self.leak_H / self.queries).tolist(),
            queries=self.queries,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerStatistics:
    """Of one block, a value for each head."""

    distance_px: list[float]
    entropy_nats: list[float]
    relative_entropy: list[float]
    """0..1: entropy divided by its upper limit."""
    kl_nats: list[float]
    """Mean over the other heads; 0 where there is one head."""
    kl_matrix: list[list[float]]
    leak: list[float]
    """Share of the attention on keys that were left out, 0..1."""
    queries: int


def attention_sums(
    logits_GHQT: Tensor,
    allowed_GQT: Tensor,
    distance_px_QT: Tensor,
    *,
    wide_GQT: Tensor | None = None,
) -> AttentionSums:
    """Sums over the queries of all groups; a query without any allowed key is no query.

    Args:
        logits_GHQT: what the model takes the softmax of, masks included.
        allowed_GQT: bool; attention is restricted to these keys and renormalised, and the mass on all others
            is the leak. A dimension of 1 stands for all groups.
        distance_px_QT: from each query to each key, in pixels of the network's input.
        wide_GQT: keys that entropy and KL count instead of `allowed_GQT`; None: the same.
    """
    logits = logits_GHQT.double()
    is_query_GQ = allowed_GQT.any(-1).expand(len(logits), -1)
    is_query_GHQ = is_query_GQ[:, None]
    log_GHQT = _log_attention(logits, allowed_GQT)
    share_GHQT = log_GHQT.exp() * is_query_GHQ[..., None]
    distance_H = torch.einsum("ghqt,qt->h", share_GHQT, distance_px_QT.double())
    kept_GHQ = torch.logsumexp(logits.masked_fill(~allowed_GQT[:, None], -torch.inf), -1)
    leak_GHQ = -torch.expm1(kept_GHQ - torch.logsumexp(logits, -1))
    counted_GQT = allowed_GQT if wide_GQT is None else wide_GQT
    if wide_GQT is not None:
        log_GHQT = _log_attention(logits, wide_GQT)
        share_GHQT = log_GHQT.exp() * is_query_GHQ[..., None]
    known_GHQT = log_GHQT.masked_fill(log_GHQT == -torch.inf, 0.0)
    # Row h, column j: the mean of ln A_j under A_h; its diagonal is minus the entropy.
    cross_HH = torch.einsum("ghqt,gjqt->hj", share_GHQT, known_GHQT)
    entropy_GHQ = -(share_GHQT * known_GHQT).sum(-1)
    limit_GHQ = counted_GQT.sum(-1).clamp(min=2).double().log()[:, None]
    return AttentionSums(
        distance_H=distance_H,
        entropy_H=entropy_GHQ.sum((0, 2)),
        relative_entropy_H=(entropy_GHQ / limit_GHQ).sum((0, 2)),
        kl_HH=cross_HH.diagonal()[:, None] - cross_HH,
        leak_H=torch.where(is_query_GHQ, leak_GHQ, 0.0).sum((0, 2)),
        queries=int(is_query_GQ.sum()),
    )


def _log_attention(logits_GHQT: Tensor, allowed_GQT: Tensor) -> Tensor:
    """ln A over the allowed keys, -inf at others; where a query has none, all of its row."""
    masked = logits_GHQT.masked_fill(~allowed_GQT[:, None], -torch.inf)
    return masked - torch.logsumexp(masked, -1, keepdim=True).nan_to_num(neginf=0.0)


def grid_distances_px(rows: int, columns: int, stride_px: float) -> Tensor:
    """float64 (T, T): distances between the cells of a grid, row by row, in pixels.

    >>> grid_distances_px(1, 3, 4.0)[0].tolist()
    [0.0, 4.0, 8.0]
    """
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    at = torch.stack([y.flatten(), x.flatten()], 1).double()
    # Not cdist: its product form rounds distances of near cells.
    return stride_px * (at[:, None] - at[None]).square().sum(-1).sqrt()
