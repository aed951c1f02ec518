"""Scores of records, and the best and worst of them with pictures of truth and prediction."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.accuracy.record_picks import FLUSHED, SHOWN, LabelPicks
from pipelines.accuracy.record_scores import record_f1
from pipelines.metrics.coco_results import Detections, Truth
from pipelines.tasks.segmentation import SegmentationFigures


def test_best_and_worst_of_many_records() -> None:
    picks = LabelPicks()
    count = 2 * FLUSHED + 5
    for number in range(count):
        truth = torch.zeros(10, 20, dtype=torch.uint8)
        truth[0] = 255
        predicted = torch.zeros_like(truth)
        predicted[1:].view(-1)[: number % 100] = 1
        picks.add(f"r{number:03}", predicted, truth)
    picks.flush()
    assert len(picks.scores) == count
    assert picks.scores["r010"] == pytest.approx(1 - 10 / 180)
    assert [each.key for each in picks.worst] == [f"r{99 - n:03}" for n in range(SHOWN)]
    assert [each.key for each in picks.best][:3] == ["r000", "r100", "r001"]
    assert picks.worst[0].truth_YX.shape == (10, 20) and (picks.worst[0].truth_YX[0] == 255).all()


def test_a_record_without_labels_has_no_score_and_large_maps_are_thinned() -> None:
    picks = LabelPicks()
    picks.add("none", torch.zeros(4, 4, dtype=torch.uint8), torch.full((4, 4), 255, dtype=torch.uint8))
    picks.add("large", torch.zeros(1000, 500, dtype=torch.uint8), torch.zeros(1000, 500, dtype=torch.uint8))
    picks.flush()
    assert picks.scores == {"large": 1.0}
    assert max(picks.best[0].predicted_YX.shape) <= 384


def test_they_are_written_and_drawn(tmp_path: Path) -> None:
    picks = LabelPicks()
    for number in range(3):
        truth = torch.zeros(40, 60, dtype=torch.uint8)
        predicted = torch.zeros_like(truth)
        predicted[: 10 * number] = 1
        picks.add(f"r{number}", predicted, truth)
    picks.flush()
    figures = SegmentationFigures(
        values={"mIoU": 0.5}, iou_by_class=[0.5, None], intersections=[1, 0], unions=[2, 0],
        records=3, views="single", picks=picks,
    )  # fmt: skip
    assert "picks" not in figures.summary()
    figures.write(tmp_path, "", ("a", "b"))
    rows = list(csv.DictReader((tmp_path / "records.csv").open()))
    assert [row["key"] for row in rows] == ["r2", "r1", "r0"]
    asked: list[str] = []

    def image_of(key: str, hw: tuple[int, int]) -> np.ndarray:
        asked.append(key)
        return np.full((*hw, 3), 90, np.uint8)

    figures.draw_records(tmp_path, "", ("a", "b"), image_of)
    assert asked == ["r2", "r1", "r0", "r0", "r1", "r2"]
    for name in ("worst", "best"):
        with Image.open(tmp_path / f"{name}-records.png") as picture:
            assert picture.width > picture.height > 300


def test_f1_of_a_record() -> None:
    truth = Truth(
        image_id=1,
        original_hw=(100, 100),
        xywh=np.array([[0, 0, 10, 10], [50, 50, 20, 20], [0, 50, 9, 9]], float),
        labels=np.array([0, 1, 2]),
        crowd=np.array([False, False, True]),
        area=np.array([100.0, 400.0, 81.0]),
        counts=None,
    )
    boxes = np.array([[0, 0, 10, 11], [50, 50, 70, 70], [0, 0, 10, 10], [50, 50, 70, 70]], np.float32)
    scores, labels = np.array([0.9, 0.8, 0.5, 0.1], np.float32), np.array([0, 0, 0, 1])
    found = Detections(boxes=boxes, scores=scores, labels=labels, counts=None)
    # One hit of three detections above 0.3, of two objects; the crowd does not count.
    assert record_f1(truth, found) == pytest.approx(2 / 5)
    assert record_f1(truth, found.take([])) == 0.0
    nothing = Truth(
        image_id=1, original_hw=(1, 1), xywh=np.zeros((0, 4)), labels=np.zeros(0, int),
        crowd=np.zeros(0, bool), area=np.zeros(0), counts=None,
    )  # fmt: skip
    assert record_f1(nothing, found.take([])) is None
