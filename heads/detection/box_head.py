"""The box head: class and refined box of each RoI (mmdet:models/roi_heads/bbox_heads/convfc_bbox_head.py).

Dims: N images, S samples an image, R RoIs of all images, K classes with background, B boxes a RoI has: one
a class, or one in all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.boxes.assignment import gather_rows
from heads.boxes.boxes import decode_boxes, encode_boxes, generalized_iou
from heads.boxes.ground_truth import GroundTruth
from heads.detection.roi_sampling import RoISamples
from heads.necks.conv_block import ConvBlock

BOX_CELLS = 7
_CONVS = 4
_GIOU_WEIGHT = 10.0


class BoxHead(nn.Module):
    """Two fully connected layers over a pooled RoI, then class scores and box deltas.

    Args:
        width: channels of the maps.
        hidden: width of both layers.
        num_classes: without background.
        stds: of the deltas: dx, dy, dw, dh.
        beta: where the box loss, a smooth L1 of deltas, turns linear; 0 is plain L1.
        class_agnostic: one box a RoI instead of one a class.
        background_first: background is class 0, with deltas of its own; otherwise the last class, without.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        num_classes: int,
        *,
        stds: tuple[float, float, float, float],
        beta: float = 0.0,
        class_agnostic: bool = False,
        background_first: bool = False,
    ) -> None:
        super().__init__()
        self.background = 0 if background_first else num_classes
        self.first_class = 1 if background_first else 0
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic
        self.beta = beta
        self.build_trunk(width, hidden)
        self.classes = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, 4 * (1 if class_agnostic else num_classes + self.first_class))
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for linear in (self.classes, self.deltas):
            nn.init.zeros_(linear.bias)
        self.register_buffer("_stds_4", torch.tensor(stds), persistent=False)
        self._stds_4: Tensor

    def forward(self, pooled_RCyx: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (R, K) and deltas (R, B, 4), float32, of pooled RoIs (R, width, 7, 7)."""
        hidden_RD = self.trunk(pooled_RCyx)
        deltas_RB4 = self.deltas(hidden_RD).float().view(len(pooled_RCyx), -1, 4)
        return self.classes(hidden_RD).float(), deltas_RB4

    def build_trunk(self, width: int, hidden: int) -> None:
        self.hidden1 = nn.Linear(width * BOX_CELLS**2, hidden)
        self.hidden2 = nn.Linear(hidden, hidden)
        for linear in (self.hidden1, self.hidden2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def trunk(self, pooled_RCyx: Tensor) -> Tensor:
        """(R, hidden), the input of both outputs."""
        return F.relu(self.hidden2(F.relu(self.hidden1(pooled_RCyx.flatten(1)))))

    def box_terms(self, deltas_R4: Tensor, boxes_R4: Tensor, targets_R4: Tensor) -> Tensor:
        """(R,): how far each RoI, moved by its deltas, is from its target; boxes in pixels."""
        wanted_R4 = encode_boxes(targets_R4, boxes_R4, self._stds_4)
        return F.smooth_l1_loss(deltas_R4, wanted_R4, beta=self.beta, reduction="none").sum(1)

    def losses(
        self, logits_RK: Tensor, deltas_RB4: Tensor, rois: RoISamples, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """{"loss_cls", "loss_box"}: sums over valid and over positive RoIs, both by the number of valid ones.

        Logits and deltas are those of the samples of all images in order.
        """
        positive_R, valid_R = rois.positive_NS.flatten(), rois.valid_NS.flatten()
        label_R = truth.labels_NG.gather(1, rois.match_NS).flatten()
        count = valid_R.sum().clamp(min=1)
        classes_R = torch.where(positive_R, label_R + self.first_class, self.background)
        cls_R = F.cross_entropy(logits_RK, classes_R, reduction="none")
        targets_R4 = gather_rows(truth.boxes_NG4, rois.match_NS).flatten(0, 1)
        own_R4 = self._own_deltas(deltas_RB4, label_R)
        box_R = self.box_terms(own_R4, rois.boxes_NS4.flatten(0, 1), targets_R4)
        return {
            "loss_cls": torch.where(valid_R, cls_R, 0).sum() / count,
            "loss_box": torch.where(positive_R, box_R, 0).sum() / count,
        }

    def decode(self, deltas_RB4: Tensor, boxes_R4: Tensor) -> Tensor:
        """Refined boxes (R, B, 4), B without the background's."""
        own_RB4 = deltas_RB4 if self.class_agnostic else deltas_RB4[:, self.first_class :]
        return decode_boxes(own_RB4, boxes_R4[:, None], self._stds_4)

    def refine(self, deltas_RB4: Tensor, boxes_R4: Tensor, label_R: Tensor) -> Tensor:
        """(R, 4): each RoI moved by the deltas of its class, from 0."""
        return decode_boxes(self._own_deltas(deltas_RB4, label_R), boxes_R4, self._stds_4)

    def likeliest(self, logits_RK: Tensor) -> Tensor:
        """int64 (R,): the best class, from 0, background aside."""
        return logits_RK[:, self.first_class :][:, : self.num_classes].argmax(1)

    def probabilities(self, logits_RK: Tensor) -> Tensor:
        """(R, num_classes), without background."""
        return logits_RK.softmax(-1)[:, self.first_class :][:, : self.num_classes]

    def _own_deltas(self, deltas_RB4: Tensor, label_R: Tensor) -> Tensor:
        if self.class_agnostic:
            return deltas_RB4[:, 0]
        index_R14 = (label_R + self.first_class)[:, None, None].expand(-1, 1, 4)
        return deltas_RB4.gather(1, index_R14)[:, 0]


class ConvBoxHead(BoxHead):
    """Four 3x3 convolutions with GroupNorm and one fully connected layer, and GIoU x 10 of decoded boxes.

    Swin-Transformer-Object-Detection@c7b2011:configs/swin/cascade_mask_rcnn_swin_*_giou_4conv1f_*.py.
    Deviation: SyncBN there, which is noisy with the RoIs of few images.
    """

    def build_trunk(self, width: int, hidden: int) -> None:
        self.convs = nn.Sequential(*(ConvBlock(width, width, 3, "gn") for _ in range(_CONVS)))
        self.hidden1 = nn.Linear(width * BOX_CELLS**2, hidden)
        nn.init.xavier_uniform_(self.hidden1.weight)
        nn.init.zeros_(self.hidden1.bias)

    def trunk(self, pooled_RCyx: Tensor) -> Tensor:
        return F.relu(self.hidden1(self.convs(pooled_RCyx).flatten(1)))

    def box_terms(self, deltas_R4: Tensor, boxes_R4: Tensor, targets_R4: Tensor) -> Tensor:
        refined_R4 = decode_boxes(deltas_R4, boxes_R4, self._stds_4)
        return _GIOU_WEIGHT * (1 - generalized_iou(refined_R4, targets_R4))
