"""The region proposal network (mmdet:models/dense_heads/rpn_head.py).

Dims: N images, A anchors of all levels, P proposals an image (padded), S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.boxes.anchors import ANCHOR_RATIOS, anchors_inside, cell_anchors, grid_anchors
from heads.boxes.assignment import BACKGROUND, DrawUniform, assign, draw_samples, gather_rows
from heads.boxes.boxes import clip_boxes, decode_boxes, encode_boxes
from heads.boxes.conventions import Conventions
from heads.boxes.ground_truth import GroundTruth
from heads.boxes.nms import best_rows, suppress

_NMS_IOU = 0.7
_POSITIVE_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorScores:
    """Objectness and deltas of every anchor, float32."""

    anchors_1A4: Tensor
    logits_NA: Tensor
    deltas_NA4: Tensor
    level_anchors: tuple[int, ...]
    """Anchors of each level, level after level along A."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposals:
    """Boxes that may hold an object, in pixels of the view; without gradients."""

    boxes_NP4: Tensor
    exists_NP: Tensor
    """bool; False is padding in images with fewer."""


class RegionProposals(nn.Module):
    """A 3x3 convolution shared by all levels, then objectness and box deltas for three anchors a cell.

    Args:
        width: channels of every map.
        strides_px: of the maps, finest first.
        anchor_scale: an anchor has (anchor_scale x stride)^2 px^2.
        border_anchors: anchors that reach beyond the image enter the loss; propose they always do.
    """

    def __init__(
        self,
        width: int,
        strides_px: Sequence[float],
        anchor_scale: float,
        conventions: Conventions,
        *,
        border_anchors: bool = True,
    ) -> None:
        super().__init__()
        self.border_anchors = border_anchors
        self.strides_px = tuple(strides_px)
        self.conventions = conventions
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.objectness = nn.Conv2d(width, len(ANCHOR_RATIOS), 1)
        self.deltas = nn.Conv2d(width, 4 * len(ANCHOR_RATIOS), 1)
        for conv in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        cells = [
            cell_anchors(stride, anchor_scale, rounded=conventions.rounded_anchors) for stride in strides_px
        ]
        self.register_buffer("_cells_L34", torch.stack(cells), persistent=False)
        self.register_buffer("_stds_4", torch.ones(4), persistent=False)
        self._cells_L34: Tensor
        self._stds_4: Tensor

    def forward(self, maps: Sequence[Tensor]) -> AnchorScores:
        """Maps (N, width, y, x), one a stride."""
        logits, deltas, anchors = [], [], []
        for cells_34, stride_px, x_NCYX in zip(self._cells_L34, self.strides_px, maps, strict=True):
            hidden_NCYX = F.relu(self.conv(x_NCYX))
            # By cells, the anchors of a cell side by side, as `grid_anchors`; a view in channels_last.
            logits.append(self.objectness(hidden_NCYX).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(hidden_NCYX).permute(0, 2, 3, 1).reshape(len(x_NCYX), -1, 4))
            anchors.append(grid_anchors(cells_34, x_NCYX.shape[2:], stride_px))
        return AnchorScores(
            anchors_1A4=torch.cat(anchors)[None],
            logits_NA=torch.cat(logits, 1).float(),
            deltas_NA4=torch.cat(deltas, 1).float(),
            level_anchors=tuple(len(each) for each in anchors),
        )

    def losses(
        self, scores: AnchorScores, truth: GroundTruth, samples: int, draw: DrawUniform
    ) -> dict[str, Tensor]:
        """{"loss_rpn_cls", "loss_rpn_box"}: sums over up to `samples` anchors an image, at most half of them
        positive, divided by how many there are; box terms over the positive ones."""
        anchors_1A4, usable_NA = scores.anchors_1A4, None
        if not self.border_anchors:
            usable_NA = anchors_inside(anchors_1A4[0], truth.image_hw_N2)
        rule = self.conventions.rpn_rule
        assigned_NA = assign(truth.boxes_NG4, truth.exists_NG, anchors_1A4, rule, usable_NA)
        drawn = draw_samples(
            assigned_NA >= 0, assigned_NA == BACKGROUND, samples, int(_POSITIVE_SHARE * samples), draw
        )
        count = drawn.valid_NS.sum().clamp(min=1)
        logits_NS = scores.logits_NA.gather(1, drawn.index_NS)
        cls_NS = F.binary_cross_entropy_with_logits(logits_NS, drawn.positive_NS.float(), reduction="none")
        match_NS = assigned_NA.gather(1, drawn.index_NS).clamp(min=0)
        targets_NS4 = encode_boxes(
            gather_rows(truth.boxes_NG4, match_NS),
            gather_rows(scores.anchors_1A4, drawn.index_NS),
            self._stds_4,
        )
        box_NS4 = F.smooth_l1_loss(
            gather_rows(scores.deltas_NA4, drawn.index_NS),
            targets_NS4,
            beta=self.conventions.rpn_beta,
            reduction="none",
        )
        # `where`, not a product: unused entries need not be finite.
        return {
            "loss_rpn_cls": torch.where(drawn.valid_NS, cls_NS, 0).sum() / count,
            "loss_rpn_box": torch.where(drawn.positive_NS[..., None], box_NS4, 0).sum() / count,
        }

    @torch.no_grad()
    def propose(self, scores: AnchorScores, image_hw_N2: Tensor, per_level: int, count: int) -> Proposals:
        """The best `per_level` anchors of each level, moved by their deltas and clipped to the image; after
        NMS at 0.7 per level the best `count` of all levels."""
        logits, boxes, kept, first = [], [], [], 0
        for logits_Na in torch.split(scores.logits_NA, list(scores.level_anchors), 1):
            logits_Np, index_Np = logits_Na.topk(min(per_level, logits_Na.shape[1]))
            boxes_Np4 = self._decode(scores, index_Np + first, image_hw_N2)
            size_Np2 = boxes_Np4[..., 2:] - boxes_Np4[..., :2]
            large_Np = (size_Np2 > self.conventions.least_proposal_px).all(-1)
            logits.append(logits_Np)
            boxes.append(boxes_Np4)
            kept.append(suppress(boxes_Np4, large_Np, _NMS_IOU))
            first += logits_Na.shape[1]
        boxes_NP4 = torch.cat(boxes, 1)
        best_NC, exists_NC = best_rows(torch.cat(logits, 1), torch.cat(kept, 1), count)
        boxes_NC4 = gather_rows(boxes_NP4, best_NC) * exists_NC[..., None]
        return Proposals(boxes_NP4=boxes_NC4, exists_NP=exists_NC)

    def _decode(self, scores: AnchorScores, index_Np: Tensor, image_hw_N2: Tensor) -> Tensor:
        boxes_Np4 = decode_boxes(
            gather_rows(scores.deltas_NA4, index_Np), gather_rows(scores.anchors_1A4, index_Np), self._stds_4
        )
        return clip_boxes(boxes_Np4, image_hw_N2)
