"""HTC's semantic branch: all levels fused into one map, trained on stuff maps, which adds to RoI features.

mmdet:models/roi_heads/mask_heads/fused_semantic_head.py. Its maps are read at stride 8, p3's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.contract import Targets
from heads.errors import HeadError

STUFF = "stuff"
"""Name of the target with the stuff map."""
IGNORED_STUFF = 255
_CONVS = 4
_FUSION_LEVEL = 1
_LOSS_WEIGHT = 0.2


class SemanticBranch(nn.Module):
    """A 1x1 convolution a level, resized to the second and summed; four 3x3; class scores and features.

    Every convolution but that of the scores is followed by ReLU.
    """

    def __init__(self, width: int, levels: int, classes: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(levels))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(_CONVS))
        self.embedding = nn.Conv2d(width, width, 1)
        self.scores = nn.Conv2d(width, classes, 1)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps of all levels -> class scores (N, classes, y, x) and features (N, width, y, x) of the second's
        size."""
        size = maps[_FUSION_LEVEL].shape[2:]
        fused_NCYX: Tensor | None = None
        for level, (lateral, x_NCYX) in enumerate(zip(self.laterals, maps, strict=True)):
            if level != _FUSION_LEVEL:
                x_NCYX = F.interpolate(x_NCYX, size=size, mode="bilinear", align_corners=True)
            y_NCYX = F.relu(lateral(x_NCYX))
            fused_NCYX = y_NCYX if fused_NCYX is None else fused_NCYX + y_NCYX
        assert fused_NCYX is not None
        for conv in self.convs:
            fused_NCYX = F.relu(conv(fused_NCYX))
        return self.scores(fused_NCYX), F.relu(self.embedding(fused_NCYX))


def stuff_loss(scores_NKyx: Tensor, targets: Targets, stride_px: int) -> Tensor:
    """0.2 x mean cross entropy over the cells with a label; 0 if no cell has one.

    A cell's label is that of its first pixel, as resizing by nearest gives it. Raises HeadError for a target
    without "stuff", uint8 (y, x) over the view's pixels, or one larger than the padded view.
    """
    grid = tuple(scores_NKyx.shape[2:])
    labels = []
    for image, target in enumerate(targets):
        if STUFF not in target:
            raise HeadError(
                f"target {image} has no stuff map, which the semantic branch learns from; without stuff maps "
                "take the head htc-nosem-bifpn5"
            )
        coarse_yx = target[STUFF][::stride_px, ::stride_px]
        missing = [cells - have for cells, have in zip(grid, coarse_yx.shape, strict=True)]
        if min(missing) < 0:
            height, width = target[STUFF].shape
            limit = f"{grid[0]}x{grid[1]} cells of {stride_px} px"
            raise HeadError(f"stuff map of {height}x{width} px, expected at most {limit}")
        labels.append(F.pad(coarse_yx, (0, missing[1], 0, missing[0]), value=IGNORED_STUFF))
    labels_Nyx = torch.stack(labels).to(scores_NKyx.device, non_blocking=True).long()
    sums = F.cross_entropy(scores_NKyx.float(), labels_Nyx, ignore_index=IGNORED_STUFF, reduction="sum")
    return _LOSS_WEIGHT * sums / (labels_Nyx != IGNORED_STUFF).sum().clamp(min=1)
