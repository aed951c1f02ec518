"""The mask head: the object's pixels within each RoI (mmdet:models/roi_heads/mask_heads/fcn_mask_head.py).

A class's mask is computed for RoIs of that class only: of the last 1x1 convolution a RoI needs one row.
Dims: R RoIs, M 28 cells a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MASK_CELLS = 14
MASK_SIZE = 2 * MASK_CELLS
_CONVS = 4


class MaskHead(nn.Module):
    """Four 3x3 convolutions with ReLU, a 2x2 deconvolution with ReLU, a 1x1 convolution to one mask a class.

    Args:
        width: channels of the pooled RoIs.
        hidden: channels inside; at flow also those that come from the head before.
        outputs: masks, one a class.
        flow: takes the last features of the head before, through a 1x1 convolution with ReLU, to its input
            (HTC's mask information flow). `hidden` is then `width`.
    """

    def __init__(self, width: int, hidden: int, outputs: int, *, flow: bool = False) -> None:
        super().__init__()
        inputs = [width] + [hidden] * (_CONVS - 1)
        self.flow = nn.Conv2d(hidden, width, 1) if flow else None
        self.convs = nn.ModuleList(nn.Conv2d(channels, hidden, 3, padding=1) for channels in inputs)
        self.upsample = nn.ConvTranspose2d(hidden, hidden, 2, stride=2)
        self.masks = nn.Conv2d(hidden, outputs, 1)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)

    def features(self, pooled_RCyx: Tensor, before_RCyx: Tensor | None = None) -> Tensor:
        """(R, hidden, 14, 14); `before` are the features of the head before, where there is one."""
        x_RCyx = pooled_RCyx
        if self.flow is not None and before_RCyx is not None:
            x_RCyx = x_RCyx + F.relu(self.flow(before_RCyx))
        for conv in self.convs:
            x_RCyx = F.relu(conv(x_RCyx))
        return x_RCyx

    def logits(self, features_RCyx: Tensor, output_R: Tensor) -> Tensor:
        """float32 (R, M, M): of each RoI the mask of output `output_R`, int64."""
        fine_RCM = F.relu(self.upsample(features_RCyx)).flatten(2)
        rows_R1C = self.masks.weight.flatten(1)[output_R, None]
        assert self.masks.bias is not None
        masks_RM = torch.bmm(rows_R1C, fine_RCM)[:, 0].float() + self.masks.bias.float()[output_R, None]
        return masks_RM.view(-1, MASK_SIZE, MASK_SIZE)

    def forward(self, pooled_RCyx: Tensor, output_R: Tensor) -> Tensor:
        """As `logits`, of pooled RoIs (R, width, 14, 14)."""
        return self.logits(self.features(pooled_RCyx), output_R)


def mask_loss(logits_RMM: Tensor, targets_RMM: Tensor, counts_R: Tensor) -> Tensor:
    """Mean binary cross entropy over the cells of all RoIs with `counts_R`; 0 if there are none."""
    terms_R = F.binary_cross_entropy_with_logits(logits_RMM, targets_RMM, reduction="none").mean((1, 2))
    return torch.where(counts_R, terms_R, 0).sum() / counts_R.sum().clamp(min=1)
