"""Linear Soft-NMS: overlapping boxes lose score instead of being dropped (Bodla et al., ICCV 2017).

Dims: J boxes of an image, D those it ends with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heads.boxes.boxes import pairwise_iou


def soft_nms(
    boxes_J4: Tensor, scores_J: Tensor, labels_J: Tensor, *, iou: float, least_score: float, most: int
) -> tuple[Tensor, Tensor]:
    """Indices (D,) of the best boxes and their lowered scores (D,), best first.

    The best box left is taken, and every box of its class that overlaps it by more than `iou` keeps
    1 - overlap of its score, until `most` are taken or no score is above `least_score`. Scores are 0 or more.
    """
    taken, taken_scores = [], []
    left_J = scores_J.clone()
    for _ in range(min(most, len(scores_J))):
        score, best = left_J.max(0)
        taken.append(best)
        taken_scores.append(score)
        overlap_J = pairwise_iou(boxes_J4[best].view(1, 1, 4), boxes_J4[None])[0, 0]
        decays_J = (overlap_J > iou) & (labels_J == labels_J[best])
        left_J = torch.where(decays_J, left_J * (1 - overlap_J), left_J).index_fill(0, best, -1.0)
    if not taken:
        return labels_J, scores_J
    index_D, score_D = torch.stack(taken), torch.stack(taken_scores)
    above_D = score_D > least_score
    return index_D[above_D], score_D[above_D]
