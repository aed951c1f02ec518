"""NMS and Soft-NMS against greedy loops."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heads.boxes import nms
from heads.boxes.boxes import pairwise_iou
from heads.boxes.nms import best_rows, soft_nms, suppress, suppress_together
from heads.boxes.postprocess import DetectRule, detect

Suppress = Callable[[Tensor, Tensor, float], Tensor]
BOTH: list[Suppress] = [suppress, suppress_together]


def greedy(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> list[int]:
    """Best first; a box is kept unless a kept box of its group overlaps it by more."""
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


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.7]), st.sampled_from(BOTH))
def test_padded_rows_equal_the_greedy_loop(seed: int, iou: float, function: Suppress) -> None:
    boxes, _, _, exists = random_boxes(3, 40, seed)
    kept = function(boxes, exists, iou)
    best_first = -torch.arange(40)
    for row in range(3):
        real = exists[row].nonzero()[:, 0]
        expected = real[greedy(boxes[row][real], best_first[real], torch.zeros(len(real)), iou)]
        assert kept[row].nonzero()[:, 0].tolist() == sorted(expected.tolist())


@pytest.mark.parametrize("pairs", [1, 1 << 25])
def test_long_chains(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    """Each box overlaps the next two, so that a result depends on every better box, through many rounds."""
    monkeypatch.setattr(nms, "_PAIRS", pairs)
    left = torch.arange(200.0)
    boxes = torch.stack([left, left * 0, left + 6, left * 0 + 4], 1).expand(2, -1, -1)
    exists = torch.ones(2, 200, dtype=torch.bool)
    exists[1, 0] = False
    kept = suppress_together(boxes, exists, 0.45)
    assert kept[0].nonzero()[:, 0].tolist() == list(range(0, 200, 3))
    assert kept[1].nonzero()[:, 0].tolist() == list(range(1, 200, 3))
    assert torch.equal(kept, suppress(boxes, exists, 0.45))


def test_a_realistic_number_of_proposals() -> None:
    """Both ways agree on 1000 boxes around 30 places, like the anchors that score best."""
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(30, 2, generator=generator) * 400
    corner = places[torch.randint(0, 30, (1000,), generator=generator)]
    corner = corner + torch.randn(1000, 2, generator=generator) * 6
    boxes = torch.cat([corner, corner + 60 + torch.randn(1000, 2, generator=generator) * 8], 1)[None]
    exists = torch.rand(1, 1000, generator=generator) < 0.95
    together = suppress_together(boxes, exists, 0.7)
    assert torch.equal(together, suppress(boxes, exists, 0.7))
    assert 50 < together.sum() < 500


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
    rule = DetectRule(least_score=0.3, nms_iou=0.5, most=12, soft=False, least_px=-1.0)
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
    rule = DetectRule(least_score=0.1, nms_iou=0.5, most=5, soft=False, least_px=-1.0)
    found = detect(boxes, torch.tensor([[0.2, 0.7]]), rule)
    assert found.boxes_D4.tolist() == [[50, 50, 60, 60], [0, 0, 10, 10]]
    assert found.labels_D.tolist() == [1, 0]


def test_nothing_detected() -> None:
    rule = DetectRule(least_score=0.5, nms_iou=0.5, most=5, soft=False, least_px=-1.0)
    found = detect(torch.zeros(3, 1, 4), torch.zeros(3, 2), rule)
    assert found.boxes_D4.shape == (0, 4) and found.scores_D.shape == found.labels_D.shape == (0,)


@pytest.mark.oracle
@pytest.mark.parametrize("most", [1000, 12])
def test_soft_nms_is_effdets(most: int) -> None:
    theirs = pytest.importorskip("effdet.soft_nms").batched_soft_nms
    boxes, _, groups, _ = random_boxes(1, 80, 6)
    scores = torch.rand(80, generator=torch.Generator().manual_seed(2))
    expected = theirs(
        boxes[0], scores, groups[0], method_gaussian=False, iou_threshold=0.3, score_threshold=0.05
    )
    index, lowered = soft_nms(boxes[0], scores, groups[0], iou=0.3, least_score=0.05, most=most)
    assert len(expected[0]) < 80 and (expected[1] < scores[expected[0]]).sum() > 10
    assert index.tolist() == expected[0][:most].tolist()
    torch.testing.assert_close(lowered, expected[1][:most], rtol=1e-4, atol=1e-6)


def test_soft_nms_in_a_rule() -> None:
    """Boxes that hard NMS drops stay with a lower score, unless it is below the threshold."""
    boxes = torch.tensor([[[0.0, 0, 10, 10]], [[0.0, 0, 10, 8]], [[0.0, 0, 10, 9.9]]])
    probabilities = torch.tensor([[0.9], [0.8], [0.2]])
    rule = DetectRule(least_score=0.05, nms_iou=0.5, most=5, soft=True, least_px=-1.0)
    found = detect(boxes, probabilities, rule)
    torch.testing.assert_close(found.scores_D, torch.tensor([0.9, 0.8 * (1 - 0.8)]))
    assert torch.equal(found.boxes_D4, boxes[:2, 0])
    nothing = detect(boxes, probabilities * 0, rule)
    assert nothing.boxes_D4.shape == (0, 4)
