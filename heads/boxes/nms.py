"""Non-maximum suppression: hard for padded rows of several images, soft (linear) for one image.

Dims: N images, P boxes an image (padded), best first; J boxes of one image, D those kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from heads.boxes.boxes import pairwise_iou

_PAIRS = 32 << 20  # overlaps held at a time: 128 MiB of float32
_ROUNDS = 8


def suppress(boxes_NP4: Tensor, exists_NP: Tensor, iou: float) -> Tensor:
    """bool (N, P): boxes kept; no two of an image overlap by more than `iou`, the better one stays.

    On a GPU this waits for the device as `suppress_together` does; a CPU takes one image after the other.
    """
    if boxes_NP4.is_cuda:
        return suppress_together(boxes_NP4, exists_NP, iou)
    kept_NP = torch.zeros_like(exists_NP)
    # A box of no area overlaps nothing, so one that does not exist suppresses none.
    real_NP4 = boxes_NP4 * exists_NP[..., None]
    falling_P = torch.arange(boxes_NP4.shape[1], 0, -1, dtype=boxes_NP4.dtype)
    if torch.compiler.is_exporting():
        kept = [_export_nms(boxes_P4, falling_P, iou) for boxes_P4 in real_NP4.unbind()]
        padded_P = F.pad(kept_NP[0], (0, 2))
        marked = [padded_P.index_fill(0, index, True)[: len(falling_P)] for index in kept]
        return torch.stack(marked) & exists_NP
    for boxes_P4, kept_P in zip(real_NP4, kept_NP, strict=True):
        kept_P[nms(boxes_P4, falling_P, iou)] = True
    return kept_NP & exists_NP


def suppress_together(boxes_NP4: Tensor, exists_NP: Tensor, iou: float) -> Tensor:
    """As `suppress`, all boxes of some images at a time.

    A box is dropped if a better one that is kept overlaps it. Starting with all boxes kept, each round
    decides for every box again; after k rounds the k best boxes are as in the greedy loop, and once a round
    changes nothing all are (Zheng et al., IEEE Trans. Cybernetics 2021, Cluster-NMS). The greedy loop is one
    long dependent chain; a round is one matrix product.

    Waits for the device once in 8 rounds, for as many images as make 32 million pairs.
    """
    images = max(1, _PAIRS // max(1, boxes_NP4.shape[1] ** 2))
    parts = zip(torch.split(boxes_NP4, images), torch.split(exists_NP, images), strict=True)
    return torch.cat([_suppress_part(boxes_nP4, exists_nP, iou) for boxes_nP4, exists_nP in parts])


def _suppress_part(boxes_nP4: Tensor, exists_nP: Tensor, iou: float) -> Tensor:
    # Half precision holds 0 and 1, and the sum of ones is compared with 0 only.
    dtype = torch.float16 if boxes_nP4.is_cuda else torch.float32
    overlaps_nPP = (pairwise_iou(boxes_nP4, boxes_nP4) > iou).triu_(1).to(dtype)
    kept_nP = exists_nP
    while True:
        for _ in range(_ROUNDS):
            before_nP = kept_nP
            hit_nP = torch.bmm(kept_nP[:, None].to(dtype), overlaps_nPP)[:, 0] > 0
            kept_nP = exists_nP & ~hit_nP
        if torch.equal(before_nP, kept_nP):
            return kept_nP


def suppress_padded(boxes_J4: Tensor, scores_J: Tensor, iou: float, most: int) -> Tensor:
    """int64 (most,): rows of the boxes kept, best first; after the last of them J. For torch.export, where no
    shape may depend on values.

    Boxes of score 0 are none.
    """
    kept_D = _export_nms(boxes_J4 * (scores_J > 0)[:, None], scores_J, iou).clamp(max=len(scores_J))
    none_J = torch.full((most,), len(scores_J), dtype=torch.int64, device=kept_D.device)
    padded_D = torch.cat([kept_D, none_J])[:most]
    score_D = F.pad(scores_J, (0, 1))[padded_D]
    return torch.where(score_D > 0, padded_D, len(scores_J))


def _export_nms(boxes_J4: Tensor, scores_J: Tensor, iou: float) -> Tensor:
    """torchvision's nms of J boxes and two more, rows J and J + 1, which come last and are always kept:
    torch.export takes numbers of rows below 2 for constants."""
    more_24 = boxes_J4.new_tensor([[-4.0, -4.0, -3.0, -3.0], [-2.0, -2.0, -1.0, -1.0]])
    scores = torch.cat([scores_J, scores_J.new_tensor([-1.0, -2.0])])
    kept: Tensor = nms(torch.cat([boxes_J4, more_24]), scores, iou)
    return kept


def best_rows(scores_NP: Tensor, chosen_NP: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices (N, count) of the highest scores among those chosen, and which of them are (bool).

    Fewer columns where P is less than `count`.
    """
    ranked_NP = torch.where(chosen_NP, scores_NP, -torch.inf)
    index_NC = ranked_NP.topk(min(count, ranked_NP.shape[1])).indices
    return index_NC, chosen_NP.gather(1, index_NC)


def soft_nms(
    boxes_J4: Tensor, scores_J: Tensor, labels_J: Tensor, *, iou: float, least_score: float, most: int
) -> tuple[Tensor, Tensor]:
    """Linear Soft-NMS: indices (D,) of the best boxes and their lowered scores (D,), best first.

    The best box left is taken, and every box of its class that overlaps it by more than `iou` keeps
    1 - overlap of its score, until `most` are taken or no score is above `least_score`. Scores are 0 or more
    (Bodla et al., ICCV 2017).
    """
    if not len(scores_J):
        return labels_J, scores_J
    index_D, score_D = soft_nms_rounds(boxes_J4, scores_J, labels_J, iou, most)
    above_D = score_D > least_score
    return index_D[above_D], score_D[above_D]


def soft_nms_rounds(
    boxes_J4: Tensor, scores_J: Tensor, labels_J: Tensor, iou: float, most: int
) -> tuple[Tensor, Tensor]:
    """`soft_nms` of one box or more, whatever the scores: min(most, J) rows."""
    taken, taken_scores = [], []
    left_J = scores_J.clone()
    for _ in range(min(most, len(scores_J))):
        score, best = left_J.max(0)
        taken.append(best)
        taken_scores.append(score)
        overlap_J = pairwise_iou(boxes_J4[best].view(1, 1, 4), boxes_J4[None])[0, 0]
        decays_J = (overlap_J > iou) & (labels_J == labels_J[best])
        left_J = torch.where(decays_J, left_J * (1 - overlap_J), left_J).index_fill(0, best, -1.0)
    return torch.stack(taken), torch.stack(taken_scores)
