"""Matching and sampling against plain loops (mmdet's MaxIoUAssigner and RandomSampler) and torchvision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heads.boxes import assignment
from heads.boxes.assignment import (
    BACKGROUND,
    IGNORED,
    AssignRule,
    assign,
    draw_samples,
    gather_rows,
    uniform_draws,
)
from heads.boxes.boxes import pairwise_iou

RPN = AssignRule(positive_iou=0.7, negative_iou=0.3, rescue_iou=0.3)
ROI = AssignRule(positive_iou=0.5, negative_iou=0.5, rescue_iou=0.5)
PLAIN = AssignRule(positive_iou=0.5, negative_iou=0.5, rescue_iou=None)
THEIRS = AssignRule(positive_iou=0.7, negative_iou=0.3, rescue_iou=0.0, rescued_take_best=True)


def by_loops(iou_GA: list[list[float]], rule: AssignRule) -> list[int]:
    """mmdet:core/bbox/assigners/max_iou_assigner.py, one candidate and one box after the other."""
    count = len(iou_GA[0])
    # Thresholds as float32 overlaps meet them: 7 / 10 is at 0.7, not below.
    positive_iou, negative_iou = torch.tensor([rule.positive_iou, rule.negative_iou]).tolist()
    assigned = []
    for candidate in range(count):
        column = [row[candidate] for row in iou_GA]
        best = max(column)
        if best >= positive_iou:
            assigned.append(column.index(best))
        else:
            assigned.append(BACKGROUND if best < negative_iou else IGNORED)
    if rule.rescue_iou is not None:
        for box, row in enumerate(iou_GA):
            if max(row) >= float(torch.tensor(rule.rescue_iou)):
                for candidate in range(count):
                    if row[candidate] == max(row):
                        assigned[candidate] = box
    return assigned


# Corners on a coarse grid: overlaps tie often.
cell = st.integers(0, 4)
box = st.builds(lambda x, y, w, h: [x, y, x + w + 1, y + h + 1], cell, cell, cell, cell)
boxes = st.lists(box, min_size=1, max_size=5)
candidates = st.lists(box, min_size=1, max_size=12)


@settings(max_examples=150)
@given(boxes, candidates, st.sampled_from([RPN, ROI, PLAIN]))
def test_ties_and_thresholds(found: list[list[int]], anchors: list[list[int]], rule: AssignRule) -> None:
    truth, others = (torch.tensor(each, dtype=torch.float32)[None] for each in (found, anchors))
    iou = pairwise_iou(truth, others)[0].tolist()
    exists = torch.ones(1, len(found), dtype=torch.bool)
    assert assign(truth, exists, others, rule)[0].tolist() == by_loops(iou, rule)


@pytest.mark.oracle
@given(boxes, candidates)
def test_torchvisions_matcher(found: list[list[int]], anchors: list[list[int]]) -> None:
    matcher_of = pytest.importorskip("torchvision.models.detection._utils").Matcher
    truth, others = (torch.tensor(each, dtype=torch.float32)[None] for each in (found, anchors))
    expected = matcher_of(0.7, 0.3, allow_low_quality_matches=True)(pairwise_iou(truth, others)[0])
    exists = torch.ones(1, len(found), dtype=torch.bool)
    assert assign(truth, exists, others, THEIRS)[0].tolist() == expected.tolist()


def random_boxes(images: int, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, count, 2, generator=generator) * 60
    return torch.cat([corner, corner + 5 + torch.rand(images, count, 2, generator=generator) * 60], 2)


@pytest.mark.parametrize("pairs", [1, 500, 1 << 24])
def test_a_batch_equals_its_images(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    """Padding, other images and the number of boxes compared at a time change nothing."""
    monkeypatch.setattr(assignment, "_PAIRS", pairs)
    truth, anchors = random_boxes(3, 6, 0), random_boxes(1, 200, 1)
    exists = torch.tensor([[True] * 6, [True] * 2 + [False] * 4, [False] * 6])
    together = assign(truth, exists, anchors, RPN)
    for row, count in enumerate([6, 2, 0]):
        if count:
            expected = by_loops(pairwise_iou(truth[row : row + 1, :count], anchors)[0].tolist(), RPN)
            assert together[row].tolist() == expected
            assert max(expected) >= 0 and min(expected) < 0
        else:
            assert (together[row] == BACKGROUND).all()


flags = st.lists(st.sampled_from(["positive", "negative", "neither"]), min_size=1, max_size=30)


@settings(max_examples=150)
@given(st.lists(flags, min_size=1, max_size=3), st.integers(1, 40), st.integers(0, 20), st.integers(0, 99))
def test_as_many_samples_as_possible_are_drawn(
    kinds: list[list[str]], samples: int, most_positive: int, seed: int
) -> None:
    """mmdet's RandomSampler: positives up to their most, negatives up to the rest, each at most once."""
    length = max(map(len, kinds))
    padded = [row + ["neither"] * (length - len(row)) for row in kinds]
    positive, negative = (
        torch.tensor([[kind == wanted for kind in row] for row in padded])
        for wanted in ("positive", "negative")
    )
    draw = uniform_draws(torch.Generator().manual_seed(seed), torch.device("cpu"))
    drawn = draw_samples(positive, negative, samples, most_positive, draw)
    for row in range(len(kinds)):
        valid = drawn.valid_NS[row]
        chosen, is_positive = drawn.index_NS[row][valid], drawn.positive_NS[row][valid]
        assert len(set(chosen.tolist())) == len(chosen)
        positives = min(int(positive[row].sum()), most_positive, samples)
        assert int(is_positive.sum()) == positives
        assert len(chosen) - positives == min(int(negative[row].sum()), min(samples, length) - positives)
        assert is_positive.tolist() == positive[row][chosen].tolist()
        assert (positive[row] | negative[row])[chosen].all()
        assert is_positive.tolist() == sorted(is_positive.tolist(), reverse=True), "positives come first"
        assert not drawn.positive_NS[row][~valid].any()


def test_every_candidate_is_drawn_equally_often() -> None:
    """3 of 10 positives and 5 of 20 negatives, 4000 times: 0.3 and 0.25, give or take 4 deviations."""
    kinds = torch.arange(30).expand(4000, -1) % 3
    draw = uniform_draws(torch.Generator().manual_seed(0), torch.device("cpu"))
    drawn = draw_samples(kinds == 0, kinds != 0, 8, 3, draw)
    assert drawn.valid_NS.all()
    rate = torch.bincount(drawn.index_NS.flatten(), minlength=30) / 4000
    torch.testing.assert_close(rate[::3], torch.full((10,), 0.3), rtol=0, atol=0.03)
    torch.testing.assert_close(rate[1::3], torch.full((10,), 0.25), rtol=0, atol=0.03)


def test_draws_come_from_the_generator() -> None:
    kinds = torch.arange(30).expand(2, -1) % 3

    def draw(seed: int) -> list[list[int]]:
        source = uniform_draws(torch.Generator().manual_seed(seed), torch.device("cpu"))
        return draw_samples(kinds == 0, kinds == 1, 8, 3, source).index_NS.tolist()

    assert draw(1) == draw(1) != draw(2)


def test_gather_rows() -> None:
    values = torch.arange(2 * 5 * 4).view(2, 5, 4)
    index = torch.tensor([[4, 0], [1, 1]])
    assert torch.equal(gather_rows(values, index), torch.stack([values[0, [4, 0]], values[1, [1, 1]]]))
    assert torch.equal(gather_rows(values[:1], index), torch.stack([values[0, [4, 0]], values[0, [1, 1]]]))
