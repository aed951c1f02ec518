"""Counts against torchmetrics and a plain loop."""

from __future__ import annotations

import pytest
import torch

from extract.views.view import IGNORE
from heads.segmentation.pixel_loss import IGNORE_LABEL
from pipelines.metrics.pixel_scores import (
    PIXEL_SCORES,
    class_iou,
    intersections,
    mean_iou,
    pixel_accuracy,
    unions,
)
from pipelines.metrics.segmentation import Confusion
from pipelines.tasks.info.segmentation import INFO


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
    assert pixel_accuracy(counts.on_host()) == pytest.approx(float(accuracy), abs=1e-6)
    oracle = metrics.multiclass_jaccard_index(predicted, labels, average="none", **settings)
    ours = [0.0 if value is None else value for value in class_iou(counts.on_host())]
    assert ours == pytest.approx(oracle.tolist(), abs=1e-6)
    assert mean_iou(counts.on_host()) == pytest.approx(float(oracle[:5].mean()), abs=1e-6)  # without class 5


def test_equal_to_a_plain_loop(images: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    hits, joined = [0] * 6, [0] * 6
    for predicted, labels in images:
        for guess, truth in zip(predicted.flatten().tolist(), labels.flatten().tolist(), strict=True):
            if truth == IGNORE_LABEL:
                continue
            hits[truth] += guess == truth
            for label in {guess, truth}:
                joined[label] += 1
    counts_KK = counted(images).on_host()
    assert (intersections(counts_KK), unions(counts_KK)) == (hits, joined)
    assert class_iou(counts_KK)[5] is None


def test_without_counted_pixels_scores_are_none() -> None:
    counts = Confusion(3)
    counts.update(torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), IGNORE_LABEL, dtype=torch.uint8))
    assert {name: score(counts.on_host()) for name, score in PIXEL_SCORES.items()} == dict.fromkeys(
        PIXEL_SCORES
    )


def test_a_new_score_is_one_row() -> None:
    """Reports name the scores of the table, and the one that counts is the first."""
    assert [score.name for score in INFO.scores] == list(PIXEL_SCORES)
    assert INFO.main_score == "mIoU"


def test_refuses_other_sizes_and_unknown_labels() -> None:
    counts = Confusion(3)
    with pytest.raises(ValueError, match=r"\(2, 2\) px, labels are \(2, 3\) px"):
        counts.update(torch.zeros(2, 2), torch.zeros(2, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"label 7, expected 0\.\.2"):
        counts.update(torch.zeros(1, 1), torch.full((1, 1), 7, dtype=torch.uint8))


def test_stores_and_heads_ignore_the_same_label() -> None:
    assert IGNORE == IGNORE_LABEL  # extract and heads never meet: each holds the number
