"""Numbers that other projects' tests print for boxes, anchors, matching, RoIAlign and NMS, with sources.

mmdet and mmcv: open-mmlab/mmdetection, open-mmlab/mmcv; d2: facebookresearch/detectron2@02b5c4e; torchvision:
pytorch/vision.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heads.boxes import assignment
from heads.boxes.anchors import cell_anchors, grid_anchors
from heads.boxes.assignment import BACKGROUND, IGNORED, AssignRule, assign
from heads.boxes.boxes import clip_boxes, decode_boxes, generalized_iou, pairwise_iou
from heads.boxes.conventions import TORCHVISION
from heads.boxes.nms import soft_nms, suppress
from heads.boxes.roi_align import pool_rois

UNIT = torch.ones(4)


@pytest.mark.parametrize(
    ("stride_px", "octave", "wide", "square"),
    [
        (8, 0, (22.6274, 11.3137), 16.0),
        (8, 1, (28.5088, 14.2544), 20.1587),
        (8, 2, (35.9188, 17.9594), 25.3984),
        (16, 0, (45.2548, 22.6274), 32.0),
        (16, 1, (57.0175, 28.5088), 40.3175),
        (32, 2, (143.6751, 71.8376), 101.5937),
        (64, 1, (228.0701, 114.0350), 161.2699),
        (64, 2, (287.3503, 143.6751), 203.1873),
    ],
)
def test_anchors_of_a_cell(stride_px: int, octave: int, wide: tuple[float, float], square: float) -> None:
    """mmdet:tests/test_core/test_anchor/test_anchor_generator.py, test_retina_anchor: scale 4."""
    found = cell_anchors(stride_px, 4 * 2 ** (octave / 3))
    (x, y), s = wide, square
    expected = torch.tensor([[-x, -y, x, y], [-s, -s, s, s], [-y, -x, y, x]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_anchors_of_a_grid() -> None:
    """test_strides there; d2:tests/modeling/test_anchor_generator.py, test_default_anchor_generator."""
    found = grid_anchors(torch.tensor([[-5.0, -5, 5, 5]]), (2, 2), 10)
    assert found.tolist() == [[-5, -5, 5, 5], [5, -5, 15, 5], [-5, 5, 5, 15], [5, 5, 15, 15]]
    cell = torch.tensor([[-32.0, -8, 32, 8], [-16, -16, 16, 16], [-8, -32, 8, 32]])
    shifted = [[-28, -8, 36, 8], [-12, -16, 20, 16], [-4, -32, 12, 32]]
    assert grid_anchors(cell, (1, 2), 4).tolist() == [*cell.tolist(), *shifted]


def test_decoded_deltas() -> None:
    """mmdet:tests/test_core/test_bbox/test_coder/test_delta_xywh_bbox_coder.py; clipped to 32 x 32."""
    rois = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 5, 5]])
    deltas = torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 2, -1], [0.7, -1.9, -0.5, 0.3]])
    expected = [[0, 0, 1, 1], [0.1409, 0.1409, 2.8591, 2.8591], [0, 0.3161, 4.1945, 0.6839], [5, 5, 5, 5]]
    found = clip_boxes(decode_boxes(deltas, rois, UNIT)[None], torch.tensor([[32.0, 32.0]]))[0]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-4)


def test_overlaps() -> None:
    """d2:tests/structures/test_boxes.py, TestBoxIOU."""
    others = [[0, 0, 1, 1], [0, 0, 0.5, 1], [0, 0, 1, 0.5], [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]
    found = pairwise_iou(torch.tensor([[[0.0, 0, 1, 1]]]), torch.tensor([[*others, [0.5, 0.5, 1.5, 1.5]]]))
    expected = [1.0, 0.5, 0.5, 0.25, 0.25, 0.25 / (2 - 0.25)]
    torch.testing.assert_close(found[0, 0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("box", "other", "giou"),
    [
        # mmdet:tests/test_metrics/test_box_overlap.py
        ([0, 0, 10, 10], [0, 0, 10, 20], 0.5000),
        ([10, 10, 20, 20], [0, 10, 10, 19], -0.0500),
        ([32, 32, 38, 42], [10, 10, 20, 20], -0.8214),
        # torchvision:test/test_ops.py, TestGeneralizedBoxIouLoss: losses 0, 0.75, 1 and 1.5
        ([-1, -1, 1, 1], [-1, -1, 1, 1], 1.0),
        ([-1, -1, 1, 1], [0, 0, 1, 1], 1 - 0.75),
        ([0, 0, 1, 1], [0, 1, 1, 2], 1 - 1.0),
        ([0, 0, 1, 1], [1, 1, 2, 2], 1 - 1.5),
    ],
)
def test_generalized_overlaps(box: list[float], other: list[float], giou: float) -> None:
    found = generalized_iou(torch.tensor(box, dtype=torch.float32), torch.tensor(other, dtype=torch.float32))
    assert float(found) == pytest.approx(giou, abs=5e-5)


def test_matching_in_mmdet() -> None:
    """mmdet:tests/test_core/test_bbox/test_assigners/test_max_iou_assigner.py: ground truth 1, none, 2, none;
    the second overlaps its candidate by 0.15 and is matched as its best."""
    candidates = torch.tensor([[[0.0, 0, 10, 10], [10, 10, 20, 20], [5, 5, 15, 15], [32, 32, 38, 42]]])
    truth, exists = torch.tensor([[[0.0, 0, 10, 9], [0, 10, 10, 19]]]), torch.ones(1, 2, dtype=torch.bool)
    rule = AssignRule(positive_iou=0.5, negative_iou=0.5, rescue_iou=0.0)
    assert assign(truth, exists, candidates, rule).tolist() == [[0, BACKGROUND, 1, BACKGROUND]]
    nothing = assign(truth, ~exists, candidates, rule)
    assert nothing.tolist() == [[BACKGROUND] * 4]


def test_matching_in_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    """d2:tests/modeling/test_matcher.py: matches 1, 1, 2, 0 with labels ignored, 1, background, 1 (thresholds
    0.3 and 0.7, each box's best candidates kept), as torchvision's Matcher."""
    quality = torch.tensor([[[0.15, 0.45, 0.2, 0.6], [0.3, 0.65, 0.05, 0.1], [0.05, 0.4, 0.25, 0.4]]])

    def overlaps(boxes: Tensor, candidates: Tensor) -> Tensor:
        return quality.clone()

    monkeypatch.setattr(assignment, "pairwise_iou", overlaps)
    exists = torch.ones(1, 3, dtype=torch.bool)
    found = assign(torch.zeros(1, 3, 4), exists, torch.zeros(1, 4, 4), TORCHVISION.rpn_rule)
    assert found.tolist() == [[IGNORED, 1, BACKGROUND, 0]]


@pytest.mark.parametrize(
    ("aligned", "first"),
    [(False, [7.5, 8.0, 8.5, 9.0]), (True, [4.5, 5.0, 5.5, 6.0])],
)
def test_roi_align_in_detectron2(aligned: bool, first: list[float]) -> None:
    """d2:tests/layers/test_roi_align.py: the box 1 1 3 3 of 0..24 in rows of five; each row is 2.5 more."""
    x_NCYX = torch.arange(25.0).view(1, 1, 5, 5)
    box, image = torch.tensor([[1.0, 1, 3, 3]]), torch.zeros(1, dtype=torch.int64)
    found = pool_rois([x_NCYX], [1], box, image, 4, aligned=aligned)[0, 0]
    torch.testing.assert_close(found, torch.tensor(first) + 2.5 * torch.arange(4.0)[:, None])


@pytest.mark.parametrize(
    ("rows", "side", "expected"),
    [
        ([[1, 2], [3, 4]], 1.0, [[1.0, 1.25], [1.5, 1.75]]),
        ([[4, 3], [2, 1]], 1.0, [[4.0, 3.75], [3.5, 3.25]]),
        (
            [[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]],
            3.0,
            [[1.9375, 4.75], [7.5625, 10.375]],
        ),
    ],
)
def test_roi_align_in_mmcv(rows: list[list[float]], side: float, expected: list[list[float]]) -> None:
    """mmcv:tests/test_ops/test_roi_align.py (aligned, two samples a cell, as many as ours has there)."""
    x_NCYX = torch.tensor(rows, dtype=torch.float32)[None, None]
    box, image = torch.tensor([[0.0, 0, side, side]]), torch.zeros(1, dtype=torch.int64)
    assert pool_rois([x_NCYX], [1], box, image, 2)[0, 0].tolist() == expected


# mmcv:tests/test_ops/test_nms.py
BOXES = torch.tensor([[6.0, 3, 8, 7], [3, 6, 9, 11], [3, 7, 10, 12], [1, 4, 13, 7]])
SCORES = torch.tensor([0.6, 0.9, 0.7, 0.2])


def test_nms_in_mmcv() -> None:
    """test_nms_allclose: boxes 1, 0 and 3 stay at 0.3."""
    order = SCORES.argsort(descending=True)
    kept = suppress(BOXES[order][None], torch.ones(1, 4, dtype=torch.bool), 0.3)[0]
    assert order[kept].tolist() == [1, 0, 3]


def test_soft_nms_in_mmcv() -> None:
    """test_softnms_allclose, linear: 0.9, 0.6, 0.29024392, 0.2 of boxes 1, 0, 2, 3."""
    labels = torch.zeros(4, dtype=torch.int64)
    index, scores = soft_nms(BOXES, SCORES, labels, iou=0.3, least_score=0.01, most=100)
    assert index.tolist() == [1, 0, 2, 3]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.6, 0.29024392, 0.2]))
