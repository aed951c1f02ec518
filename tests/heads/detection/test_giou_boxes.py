"""The box heads of Swin's published cascades: convolutions, and GIoU of decoded boxes, by plain loops."""

import math

import pytest
import torch
from torch import Tensor

from heads.boxes.ground_truth import stack_truth
from heads.detection.box_head import ConvBoxHead
from heads.detection.cascade import STAGES, Stage
from heads.detection.roi_sampling import RoISamples
from tests.heads.detection.detection_targets import empty_target

CLASSES = 4
Box = list[float]


def decoded(box: Box, deltas: list[float], stds: tuple[float, ...]) -> Box:
    """mmdet:core/bbox/coder/delta_xywh_bbox_coder.py, unclipped."""
    x1, y1, x2, y2 = box
    dx, dy, dw, dh = (delta * std for delta, std in zip(deltas, stds, strict=True))
    most = abs(math.log(16 / 1000))
    width, height = (x2 - x1) * math.exp(min(dw, most)), (y2 - y1) * math.exp(min(dh, most))
    x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def giou(a: Box, b: Box) -> float:
    """Rezatofighi et al., CVPR 2019, algorithm 1."""
    overlap_x, overlap_y = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(overlap_x, 0) * max(overlap_y, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return overlap / union - (hull - union) / hull


@pytest.mark.parametrize("stage", STAGES, ids=("first", "second", "third"))
def test_giou_losses(stage: Stage) -> None:
    """10 x (1 - GIoU) of the boxes as decoded, summed over positive RoIs, by the RoIs sampled; the third RoI
    is moved far from its object, so that boxes do not meet."""
    torch.manual_seed(0)
    stds = stage.stds
    head = ConvBoxHead(8, 16, CLASSES, stds=stds)
    boxes = torch.tensor([[[10.0, 10, 60, 50], [0, 0, 30, 30], [20, 30, 70, 90], [0, 0, 0, 0]]])
    true = torch.tensor([[[12.0, 8, 66, 52], [150, 33, 180, 80]]])
    rois = RoISamples(
        boxes_NS4=boxes,
        match_NS=torch.tensor([[0, 0, 1, 0]]),
        positive_NS=torch.tensor([[True, False, True, False]]),
        valid_NS=torch.tensor([[True, True, True, False]]),
        is_truth_NS=torch.zeros(1, 4, dtype=torch.bool),
    )
    target = {**empty_target(), "boxes": true[0], "labels": torch.tensor([2, 0])}
    target |= {"mask_hw": torch.zeros(2, 2), "mask_yx": torch.zeros(2, 2)}
    truth = stack_truth([target], [(100, 200)], CLASSES, torch.device("cpu"))
    deltas = torch.randn(4, CLASSES, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = head.losses(torch.zeros(4, CLASSES + 1), deltas, rois, truth)["loss_box"]
    values = [
        giou(decoded(boxes[0, row].tolist(), deltas[row, label].tolist(), stds), true[0, match].tolist())
        for row, match, label in ((0, 0, 2), (2, 1, 0))
    ]
    assert values[0] > 0 > values[1]
    expected = sum(10 * (1 - value) for value in values) / 3
    torch.testing.assert_close(loss.detach(), torch.tensor(expected), rtol=1e-4, atol=0)
    loss.backward()
    assert deltas.grad is not None and deltas.grad.isfinite().all()
    touched = deltas.grad.abs().sum(2).nonzero().tolist()
    assert touched == [[0, 2], [2, 0]]


def test_the_trunk_by_its_parts() -> None:
    """3x3 convolution without bias, norm and ReLU four times, one layer and ReLU; 15,618,449 parameters."""
    head = ConvBoxHead(256, 1024, 80, stds=STAGES[0].stds)
    convs = 4 * (256 * 256 * 9 + 2 * 256)
    layer, outputs = (256 * 49 + 1) * 1024, (1024 + 1) * (81 + 80 * 4)
    assert sum(p.numel() for p in head.parameters()) == convs + layer + outputs == 46_855_347 // 3
    small = ConvBoxHead(8, 16, CLASSES, stds=STAGES[0].stds)
    pooled: Tensor = torch.randn(3, 8, 7, 7, generator=torch.Generator().manual_seed(0))
    x = pooled
    for block in small.convs:
        conv = next(module for module in block.modules() if isinstance(module, torch.nn.Conv2d))
        norm = next(module for module in block.modules() if isinstance(module, torch.nn.GroupNorm))
        x = norm(torch.nn.functional.conv2d(x, conv.weight, padding=1)).relu()
    torch.testing.assert_close(small.trunk(pooled), small.hidden1(x.flatten(1)).relu())
