"""Precision over recall and AP by size on the page of runs, from numbers that pycocotools made."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.metrics.coco_ap import coco_numbers
from pipelines.pages.detection_charts import detection_charts

TRUTH = {
    "images": [{"id": 1, "height": 200, "width": 200}, {"id": 2, "height": 200, "width": 200}],
    "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [0, 0, 120, 120], "area": 14400, "iscrowd": 0},
    ],
}
RESULTS = [
    {"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.9},
    {"image_id": 2, "category_id": 1, "bbox": [100, 100, 50, 50], "score": 0.8},
]


@pytest.mark.parametrize("engine", ["pycocotools", "faster-coco-eval"])
def test_precision_is_the_mean_over_classes_that_occur(engine: str) -> None:
    if engine == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    found = coco_numbers(TRUTH, RESULTS, "bbox", engine)  # type: ignore[arg-type]
    curve = found.precision["0.50"]
    assert len(curve) == 101
    assert curve[:51] == pytest.approx([1.0] * 51) and curve[51:] == pytest.approx([0.0] * 50)
    assert np.mean(curve) == pytest.approx(found.numbers["AP50"])


def test_charts_of_evaluated_runs(tmp_path: Path) -> None:
    found = coco_numbers(TRUTH, RESULTS, "bbox", "pycocotools")
    summary = {"box": found.numbers, "mask": None, "box_precision": found.precision, "mask_precision": None}
    (tmp_path / "evaluate.json").write_text(json.dumps(summary))
    precision, sizes = detection_charts([(0, tmp_path), (1, tmp_path / "absent")])
    assert "box precision, %" in precision.svg and "recall, %" in precision.svg
    assert "AP by size" in sizes.caption and "medium" in sizes.svg
    (tmp_path / "evaluate.json").write_text(json.dumps({"box": found.numbers}))  # of an earlier version
    assert len(list(detection_charts([(0, tmp_path)]))) == 1
    assert list(detection_charts([(0, tmp_path / "absent")])) == []
