"""Counts against torchmetrics and a plain loop."""

from __future__ import annotations

import pytest
import torch

from extract.views.view import IGNORE
from heads.segmentation.pixel_loss import IGNORE_LABEL
from pipelines.metrics.segmentation import Confusion


@pytest.fixture
def images() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Predictions and labels of three sizes; class 5 occurs nowhere, a fifth of the pixels are ignored."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for height, width in ((7, 5), (12, 9), (1, 1)):
        predicted = torch.randint(0, 5, (height, width), generator=generator)
        labels = torch.where(
            torch.rand(height, width, generator=generator) < 0.6,
            predicted,
            torch.randint(0, 5, (height, width), generator=generator),
        ).to(torch.uint8)
        labels[torch.rand(height, width, generator=generator) < 0.2] = IGNORE_LABEL
        made.append((predicted, labels))
    return made


def counted(images: list[tuple[torch.Tensor, torch.Tensor]]) -> Confusion:
    counts = Confusion(6)
    for predicted, labels in images:
        counts.update(predicted, labels)
    return counts


@pytest.mark.oracle
def test_equal_to_torchmetrics(images: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    counts = counted(images)
    predicted = torch.cat([image.flatten() for image, _ in images])
    labels = torch.cat([image.flatten() for _, image in images]).long()
    settings = {"num_classes": 6, "ignore_index": IGNORE_LABEL}
    assert torch.equal(counts.counts_KK, metrics.multiclass_confusion_matrix(predicted, labels, **settings))
    accuracy = metrics.multiclass_accuracy(predicted, labels, average="micro", **settings)
    assert counts.pixel_accuracy() == pytest.approx(float(accuracy), abs=1e-6)
    oracle = metrics.multiclass_jaccard_index(predicted, labels, average="none", **settings)
    ours = [0.0 if value is None else value for value in counts.iou()]
    assert ours == pytest.approx(oracle.tolist(), abs=1e-6)
    assert counts.miou() == pytest.approx(float(oracle[:5].mean()), abs=1e-6)  # class 5 occurs nowhere


def test_equal_to_a_plain_loop(images: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    hits, unions = [0] * 6, [0] * 6
    for predicted, labels in images:
        for guess, truth in zip(predicted.flatten().tolist(), labels.flatten().tolist(), strict=True):
            if truth == IGNORE_LABEL:
                continue
            hits[truth] += guess == truth
            for label in {guess, truth}:
                unions[label] += 1
    counts = counted(images)
    assert (counts.intersections(), counts.unions()) == (hits, unions)
    assert counts.iou()[5] is None


def test_without_counted_pixels_scores_are_none() -> None:
    counts = Confusion(3)
    counts.update(torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), IGNORE_LABEL, dtype=torch.uint8))
    assert counts.miou() is None and counts.pixel_accuracy() is None


def test_refuses_other_sizes_and_unknown_labels() -> None:
    counts = Confusion(3)
    with pytest.raises(ValueError, match=r"\(2, 2\) px, labels are \(2, 3\) px"):
        counts.update(torch.zeros(2, 2), torch.zeros(2, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"label 7, expected 0\.\.2"):
        counts.update(torch.zeros(1, 1), torch.full((1, 1), 7, dtype=torch.uint8))


def test_stores_and_heads_ignore_the_same_label() -> None:
    assert IGNORE == IGNORE_LABEL  # extract and heads never meet: each holds the number
