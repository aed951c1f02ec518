"""Scores that other projects' tests print for given predictions, with sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipelines.metrics.coco_ap import NUMBERS, coco_numbers
from pipelines.metrics.pixel_scores import class_iou, mean_iou, pixel_accuracy
from pipelines.metrics.segmentation import Confusion

Rows = list[tuple[int, int, list[float]]]

# Lightning-AI/torchmetrics@e013ff1 tests/detection/test_map.py: four images of COCO val2014, with first rows
# of cocodataset/cocoapi's results/instances_val2014_fakebbox100_results.json: image, category, x1 y1 x2 y2.
TRUTH: Rows = [
    (42, 4, [214.15, 41.29, 562.41, 285.07]),
    (73, 2, [13.00, 22.75, 548.98, 632.42]),
    (73, 2, [1.66, 3.32, 270.26, 275.23]),
    (74, 4, [61.87, 276.25, 358.29, 379.43]),
    (74, 1, [2.75, 3.66, 162.15, 316.06]),
    (74, 0, [295.55, 93.96, 313.97, 152.79]),
    (74, 0, [326.94, 97.05, 340.49, 122.98]),
    (74, 0, [356.62, 95.47, 372.33, 147.55]),
    (74, 0, [462.08, 105.09, 493.74, 146.99]),
    (74, 0, [277.11, 103.84, 292.44, 150.72]),
    (133, 5, [13.99, 2.87, 640.00, 421.52]),
]
FOUND: Rows = [
    (42, 4, [258.15, 41.29, 606.41, 285.07]),
    (73, 3, [61.00, 22.75, 565.00, 632.42]),
    (73, 2, [12.66, 3.32, 281.26, 275.23]),
    (74, 4, [87.87, 276.25, 384.29, 379.43]),
    (74, 1, [0.00, 3.66, 142.15, 316.06]),
    (74, 0, [296.55, 93.96, 314.97, 152.79]),
    (74, 0, [328.94, 97.05, 342.49, 122.98]),
    (74, 0, [356.62, 95.47, 372.33, 147.55]),
    (74, 0, [464.08, 105.09, 495.74, 146.99]),
    (74, 0, [276.11, 103.84, 291.44, 150.72]),
    (133, 5, [0.00, 2.87, 601.00, 421.52]),
]
SCORES = [0.236, 0.318, 0.726, 0.546, 0.3, 0.407, 0.611, 0.335, 0.805, 0.953, 0.699]
PRINTED = (0.706, 0.901, 0.846, 0.689, 0.800, 0.701, 0.592, 0.716, 0.716, 0.767, 0.800, 0.700)
"""The twelve numbers of pycocotools, as printed there to three digits."""
BY_CLASS = (0.725, 0.800, 0.454, None, 0.650, 0.900)


def entries(rows: Rows) -> list[dict[str, Any]]:
    return [
        {"id": number, "image_id": image, "category_id": category, "iscrowd": 0}
        | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
        for number, (image, category, (x1, y1, x2, y2)) in enumerate(rows, 1)
    ]


@pytest.mark.parametrize("engine", ["pycocotools", "faster-coco-eval"])
def test_twelve_numbers_of_coco(engine: Any) -> None:
    if engine == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    truth = {
        "images": [{"id": image, "width": 640, "height": 640} for image in (42, 73, 74, 133)],
        "categories": [{"id": number, "name": str(number)} for number in range(6)],
        "annotations": entries(TRUTH),
    }
    results = [entry | {"score": score} for entry, score in zip(entries(FOUND), SCORES, strict=True)]
    found = coco_numbers(truth, results, "bbox", engine)
    printed = dict(zip(NUMBERS, PRINTED, strict=True))
    assert found.numbers == pytest.approx(printed, abs=5.01e-4)
    assert found.ap_by_class == [
        None if each is None else pytest.approx(each, abs=5.01e-4) for each in BY_CLASS
    ]


def test_perfect_detections_score_one() -> None:
    """open-mmlab/mmdetection tests/test_evaluation/test_metrics/test_coco_metric.py: six numbers of 1.0."""
    rows: Rows = [(0, 0, [50, 60, 70, 80]), (0, 0, [100, 120, 130, 150])]
    rows += [(0, 1, [150, 160, 190, 200]), (0, 0, [250, 260, 350, 360])]
    truth = {
        "images": [{"id": 0, "width": 640, "height": 640}],
        "categories": [{"id": 0, "name": "car"}, {"id": 1, "name": "bicycle"}],
        "annotations": entries(rows),
    }
    scores = (1.0, 0.98, 0.96, 0.95)
    results = [entry | {"score": score} for entry, score in zip(entries(rows), scores, strict=True)]
    found = coco_numbers(truth, results, "bbox", "pycocotools")
    assert [found.numbers[name] for name in NUMBERS[:6]] == pytest.approx([1.0] * 6)
    assert found.ap_by_class == pytest.approx([1.0, 1.0])


def test_mean_iou_of_ten_classes() -> None:
    """huggingface/evaluate metrics/mean_iou/mean_iou.py, which is mmseg's: mean IoU 0.4775, accuracy 10 of 19
    and the IoU of each class."""
    predicted = ([[1, 2], [3, 4], [5, 255]], [[2, 7], [9, 2], [3, 6]], [[2, 2, 3], [8, 2, 4], [3, 255, 2]])
    actual = ([[0, 3], [5, 4], [6, 255]], [[1, 7], [9, 2], [3, 6]], [[1, 2, 2], [8, 2, 1], [3, 255, 1]])
    counts = Confusion(10)
    for mine, truth in zip(predicted, actual, strict=True):
        counts.update(torch.tensor(mine), torch.from_numpy(np.array(truth, np.uint8)))
    found = counts.on_host()
    assert class_iou(found) == pytest.approx([0, 0, 0.375, 0.4, 0.5, 0, 0.5, 1, 1, 1])
    assert mean_iou(found) == pytest.approx(0.47750000000000004)
    assert pixel_accuracy(found) == pytest.approx(0.5263157894736842)
