"""Anchors, overlaps and deltas against plain loops and torchvision."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heads.boxes.anchors import cell_anchors, grid_anchors
from heads.boxes.boxes import clip_boxes, decode_boxes, encode_boxes, generalized_iou, pairwise_iou

STDS = torch.tensor([0.1, 0.1, 0.2, 0.2])


def random_boxes(count: int, seed: int, side: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * side + 1], 1)


@pytest.mark.parametrize(("stride_px", "scale"), [(4, 8.0), (16, 8.0), (8, 2.5)])
def test_anchors_of_a_grid(stride_px: int, scale: float) -> None:
    """mmdet's definition, cell by cell: not rounded, centred on the cell's corner."""
    expected = []
    for row in range(3):
        for column in range(5):
            for ratio in (0.5, 1.0, 2.0):
                height, width = stride_px * scale * math.sqrt(ratio), stride_px * scale / math.sqrt(ratio)
                x, y = column * stride_px, row * stride_px
                expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    found = grid_anchors(cell_anchors(stride_px, scale), (3, 5), stride_px)
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.oracle
def test_rounded_anchors_are_torchvisions() -> None:
    anchor_utils = pytest.importorskip("torchvision.models.detection.anchor_utils")
    theirs = anchor_utils.AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),))
    (expected,) = theirs.grid_anchors([[4, 6]], [[torch.tensor(4), torch.tensor(4)]])
    found = grid_anchors(cell_anchors(4, 8.0, rounded=True), (4, 6), 4)
    assert torch.equal(found, expected)
    assert not torch.equal(found, grid_anchors(cell_anchors(4, 8.0), (4, 6), 4))


@pytest.mark.oracle
def test_deltas_are_torchvisions() -> None:
    coder_of = pytest.importorskip("torchvision.models.detection._utils").BoxCoder
    coder = coder_of((10.0, 10.0, 5.0, 5.0))
    boxes, references = random_boxes(50, 0), random_boxes(50, 1)
    deltas = encode_boxes(boxes, references, STDS)
    torch.testing.assert_close(deltas, coder.encode_single(boxes, references), rtol=1e-5, atol=1e-5)
    drawn = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)) * 3
    drawn[:5, 2:] = 40  # beyond the largest growth
    decoded = decode_boxes(drawn, references, STDS)
    torch.testing.assert_close(decoded, coder.decode_single(drawn, references), rtol=1e-5, atol=1e-3)


def test_shrinking_is_limited_as_growth_is() -> None:
    reference = torch.tensor([[0.0, 0.0, 1000.0, 1000.0]])
    smallest = decode_boxes(torch.tensor([[0.0, 0.0, -99.0, -99.0]]), reference, torch.ones(4))
    torch.testing.assert_close(smallest, torch.tensor([[492.0, 492.0, 508.0, 508.0]]))


coordinate = st.floats(0, 500, width=32)
extent = st.floats(1, 400, width=32)
box = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], coordinate, coordinate, extent, extent)


@given(st.lists(st.tuples(box, box), min_size=1, max_size=5))
def test_decoding_undoes_encoding(pairs: list[tuple[list[float], list[float]]]) -> None:
    boxes, references = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    # Sizes change by at most 1000 / 16; beyond that decoding is cut off.
    ratio = (boxes[:, 2:] - boxes[:, :2]) / (references[:, 2:] - references[:, :2])
    kept = ((ratio < 62) & (ratio > 1 / 62)).all(1)
    found = decode_boxes(encode_boxes(boxes, references, STDS.double()), references, STDS.double())
    torch.testing.assert_close(found[kept], boxes[kept], rtol=1e-6, atol=1e-6)


def test_a_reference_of_no_size_gives_finite_deltas() -> None:
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert encode_boxes(random_boxes(1, 0), point, STDS).isfinite().all()
    assert encode_boxes(torch.zeros(1, 4), torch.zeros(1, 4), STDS).isfinite().all()


@pytest.mark.oracle
def test_overlaps_are_torchvisions() -> None:
    box_iou = pytest.importorskip("torchvision.ops").box_iou
    boxes, candidates = random_boxes(7, 0).view(1, 7, 4), random_boxes(30, 1)
    expected = box_iou(boxes[0], candidates)
    assert expected.max() > 0.3
    torch.testing.assert_close(pairwise_iou(boxes, candidates[None])[0], expected)
    two = pairwise_iou(torch.cat([boxes, boxes + 3]), candidates[None])
    torch.testing.assert_close(two[1], box_iou(boxes[0] + 3, candidates))


@pytest.mark.oracle
def test_generalized_overlaps_are_torchvisions() -> None:
    ops = pytest.importorskip("torchvision.ops")
    boxes, others = random_boxes(40, 0), random_boxes(40, 1)
    expected = torch.diag(ops.generalized_box_iou(boxes, others))
    assert expected.max() > 0.2 and expected.min() < -0.2
    torch.testing.assert_close(generalized_iou(boxes, others), expected)
    moved = boxes.clone().requires_grad_()
    generalized_iou(moved, others).sum().backward()
    theirs = boxes.clone().requires_grad_()
    (-ops.generalized_box_iou_loss(theirs, others)).sum().backward()
    torch.testing.assert_close(moved.grad, theirs.grad)


def test_boxes_without_area_overlap_nothing() -> None:
    empty = torch.zeros(1, 2, 4)
    assert not pairwise_iou(empty, empty).any() and not generalized_iou(empty, empty).any()
    assert not pairwise_iou(empty + 5, torch.tensor([[[0.0, 0.0, 10.0, 10.0]]])).any()


def test_clipping() -> None:
    boxes = torch.tensor([[[-3.0, -4.0, 200.0, 300.0]], [[10.0, 20.0, 30.0, 40.0]]])
    clipped = clip_boxes(boxes, torch.tensor([[100.0, 150.0], [25.0, 15.0]]))
    assert clipped.tolist() == [[[0, 0, 150, 100]], [[10, 20, 15, 25]]]
