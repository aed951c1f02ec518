"""Scores of segmentation, each a function of the confusion matrix; a new one is a row of `PIXEL_SCORES`.

Loads no torch, so that a report can name the scores of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
"""(K, K): pixels by (true class, predicted class), over a whole data set."""


def intersections(counts_KK: Counts) -> list[int]:
    """Pixels of each class that are predicted as it."""
    found: list[int] = counts_KK.diagonal().tolist()
    return found


def unions(counts_KK: Counts) -> list[int]:
    """Pixels that are of each class, or predicted as it."""
    found: list[int] = (counts_KK.sum(0) + counts_KK.sum(1) - counts_KK.diagonal()).tolist()
    return found


def class_iou(counts_KK: Counts) -> list[float | None]:
    """The IoU of each class, None where the class occurs neither in the truth nor in a prediction."""
    pairs = zip(intersections(counts_KK), unions(counts_KK), strict=True)
    return [hit / union if union else None for hit, union in pairs]


def mean_iou(counts_KK: Counts) -> float | None:
    """The mean over the classes that occur of summed intersections over summed unions, at original resolution
    (mmseg core/evaluation/metrics.py `mean_iou`); None where nothing was counted."""
    present = [value for value in class_iou(counts_KK) if value is not None]
    return sum(present) / len(present) if present else None


def pixel_accuracy(counts_KK: Counts) -> float | None:
    """The share of counted pixels that are right; None where nothing was counted."""
    total = int(counts_KK.sum())
    return int(counts_KK.trace()) / total if total else None


PIXEL_SCORES: Mapping[str, Callable[[Any], float | None]] = {
    "mIoU": mean_iou,
    "pixel_accuracy": pixel_accuracy,
}
"""By name, as logged; shares in 0..1, the one that counts first."""
