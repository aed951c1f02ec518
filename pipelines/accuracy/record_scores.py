"""Scores of single records: F1 of detections, and the table of any score."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipelines.metrics.coco_results import Detections, Truth

LEAST_SCORE, LEAST_IOU = 0.3, 0.5
"""Detections that count, and the overlap from which one finds an object."""


def record_f1(truth: Truth, found: Detections) -> float | None:
    """2 TP / (2 TP + FP + FN) over boxes of one class at IoU 0.5 and more, the highest score first; None for
    a record without objects and without detections. Crowds are left out."""
    every = zip(truth.labels.tolist(), truth.xywh, truth.crowd, strict=True)
    objects = [(label, xywh) for label, xywh, crowd in every if not crowd]
    order = np.argsort(-found.scores, kind="stable")
    counted = [number for number in order.tolist() if found.scores[number] >= LEAST_SCORE]
    if not objects and not counted:
        return None
    free, hits = set(range(len(objects))), 0
    for number in counted:
        box, label = found.boxes[number].astype(float), int(found.labels[number])
        overlaps = {at: _iou(box, objects[at][1]) for at in free if objects[at][0] == label}
        best = max(overlaps, key=lambda at: overlaps[at], default=None)
        if best is not None and overlaps[best] >= LEAST_IOU:
            free.remove(best)
            hits += 1
    return 2 * hits / (len(counted) + len(objects))


def _iou(box: np.ndarray, xywh: np.ndarray) -> float:
    """Of x1 y1 x2 y2 and x y width height."""
    corner = xywh[:2] + xywh[2:]
    sides = np.minimum(box[2:], corner) - np.maximum(box[:2], xywh[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (float(np.prod(box[2:] - box[:2])) + float(np.prod(xywh[2:])) - shared) if shared else 0.0


def write_record_scores(
    path: Path, score: str, scores: Mapping[str, float], *, higher_is_better: bool = True
) -> None:
    """CSV of key and score, the worst first: the lowest, or of errors the highest."""
    sign = 1 if higher_is_better else -1
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("key", score))
        for key, value in sorted(scores.items(), key=lambda each: (sign * each[1], each[0])):
            writer.writerow((key, f"{value:.6f}"))
