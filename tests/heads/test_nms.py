"""Suppression beside the greedy loop it is defined by."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heads.box_coding import pairwise_iou
from heads.detections import DetectRule, detect
from heads.nms import best_rows, suppress


def greedy(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> list[int]:
    """Best first; a box stays unless one that stayed in its group overlaps it by more."""
    overlaps = pairwise_iou(boxes[None], boxes[None])[0]
    kept: list[int] = []
    for row in scores.argsort(descending=True).tolist():
        if all(groups[other] != groups[row] or overlaps[other, row] <= iou for other in kept):
            kept.append(row)
    return kept


def random_boxes(images: int, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, count, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 10 + torch.rand(images, count, 2, generator=generator) * 30], 2)
    scores = torch.randn(images, count, generator=generator)
    groups = torch.randint(0, 3, (images, count), generator=generator)
    return boxes, scores, groups, torch.rand(images, count, generator=generator) < 0.8


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.7]))
def test_padded_rows_equal_the_greedy_loop(seed: int, iou: float) -> None:
    boxes, scores, groups, exists = random_boxes(3, 40, seed)
    kept = suppress(boxes, scores, groups, exists, iou)
    for row in range(3):
        real = exists[row].nonzero()[:, 0]
        expected = real[greedy(boxes[row][real], scores[row][real], groups[row][real], iou)]
        assert kept[row].nonzero()[:, 0].tolist() == sorted(expected.tolist())


def test_best_rows() -> None:
    scores = torch.tensor([[1.0, 5.0, 3.0, 4.0], [9.0, 8.0, 7.0, 6.0]])
    chosen = torch.tensor([[True, False, True, True], [False, False, True, False]])
    index, real = best_rows(scores, chosen, 2)
    assert index[0].tolist() == [3, 2] and real[0].tolist() == [True, True]
    assert index[1, 0] == 2 and real[1].tolist() == [True, False]
    assert best_rows(scores, chosen, 9)[0].shape == (2, 4)


def test_detections_of_an_image() -> None:
    """Per class, above the least score, the best first, no more than the most."""
    boxes, _, _, _ = random_boxes(1, 30, 5)
    probabilities = torch.rand(30, 4, generator=torch.Generator().manual_seed(1))
    rule = DetectRule(least_score=0.3, nms_iou=0.5, most=12, least_px=-1.0)
    found = detect(boxes[0][:, None], probabilities, rule)
    candidates = []
    for label in range(4):
        scores = probabilities[:, label]
        above = (scores > 0.3).nonzero()[:, 0]
        for row in greedy(boxes[0][above], scores[above], torch.zeros(len(above)), 0.5):
            candidates.append((float(scores[above][row]), label, boxes[0][above][row].tolist()))
    best = sorted(candidates, reverse=True)[:12]
    assert len(candidates) > 12
    assert found.scores_D.tolist() == [score for score, _, _ in best]
    assert found.labels_D.tolist() == [label for _, label, _ in best]
    assert found.boxes_D4.tolist() == [box for _, _, box in best]


def test_boxes_of_their_own_for_each_class() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [50.0, 50, 60, 60]]])
    rule = DetectRule(least_score=0.1, nms_iou=0.5, most=5, least_px=-1.0)
    found = detect(boxes, torch.tensor([[0.2, 0.7]]), rule)
    assert found.boxes_D4.tolist() == [[50, 50, 60, 60], [0, 0, 10, 10]]
    assert found.labels_D.tolist() == [1, 0]


def test_nothing_detected() -> None:
    rule = DetectRule(least_score=0.5, nms_iou=0.5, most=5, least_px=-1.0)
    found = detect(torch.zeros(3, 1, 4), torch.zeros(3, 2), rule)
    assert found.boxes_D4.shape == (0, 4) and found.scores_D.shape == found.labels_D.shape == (0,)
