"""Non-maximum suppression for several images with the boxes of each in one padded row.

Dims: N images, P boxes an image (padded).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms


def suppress(
    boxes_NP4: Tensor, scores_NP: Tensor, groups_NP: Tensor, exists_NP: Tensor, iou: float
) -> Tensor:
    """bool (N, P): boxes that no higher-scored box of their image and group overlaps by more than `iou`.

    The device is waited for once an image, inside torchvision.
    """
    kept_NP = torch.zeros_like(exists_NP)
    # A box of no area overlaps nothing, so one that does not exist suppresses none.
    real_NP4 = boxes_NP4 * exists_NP[..., None]
    for row, kept_P in enumerate(kept_NP):
        kept_P[batched_nms(real_NP4[row], scores_NP[row], groups_NP[row], iou)] = True
    return kept_NP & exists_NP


def best_rows(scores_NP: Tensor, chosen_NP: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices (N, count) of the highest scores among those chosen, and which of them are (bool).

    Fewer columns where P is less than `count`.
    """
    ranked_NP = torch.where(chosen_NP, scores_NP, -torch.inf)
    index_NC = ranked_NP.topk(min(count, ranked_NP.shape[1])).indices
    return index_NC, chosen_NP.gather(1, index_NC)
