"""Score of each record, and the best and the worst ones as small maps.

Scores stay on the device until FLUSHED records are there, so that a GPU is waited for once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SHOWN = 8
"""Best and worst records that are kept, each."""
FLUSHED = 64
_SIDE_CELLS = 384
"""Longest side of a map that is kept, at most."""
_IGNORED = 255
Map = npt.NDArray[Any]
ImageOf = Callable[[str, tuple[int, int]], npt.NDArray[np.uint8]]
"""Key and size of a record -> its RGB (H, W, 3) of that size; grey where the image is not at hand."""


@dataclass(frozen=True, slots=True, eq=False)
class PickedRecord:
    """A record, its truth and its prediction, thinned out to one size."""

    key: str
    score: float
    truth_YX: Map
    predicted_YX: Map


@dataclass(slots=True)
class RecordPicks:
    """Score of each record, where it has one, and maps of the best and the worst."""

    higher_is_better: bool = True
    """False of errors."""
    scores: dict[str, float] = field(default_factory=dict)
    worst: list[PickedRecord] = field(default_factory=list)
    """The worst first."""
    best: list[PickedRecord] = field(default_factory=list)
    """The best first."""
    _waiting: list[tuple[str, Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add_scored(self, key: str, score: Tensor, truth_YX: Tensor, predicted_YX: Tensor) -> None:
        """Args:
        score: a scalar on the device; NaN where there is nothing to score.
        truth_YX, predicted_YX: of one type and size.
        """
        step = -(-max(truth_YX.shape) // _SIDE_CELLS)
        self._waiting.append((key, score, truth_YX[::step, ::step], predicted_YX[::step, ::step]))
        if len(self._waiting) >= FLUSHED:
            self.flush()

    def flush(self) -> None:
        """Takes what is waiting on the device."""
        if not self._waiting:
            return
        scores = torch.stack([score for _, score, *_ in self._waiting]).tolist()
        fresh = []
        for (key, _, truth, predicted), score in zip(self._waiting, scores, strict=True):
            if score == score:
                self.scores[key] = score
                fresh.append((key, score, truth, predicted))
        self._waiting = []
        sign = 1 if self.higher_is_better else -1
        low = sorted(fresh, key=lambda each: (sign * each[1], each[0]))[:SHOWN]
        high = sorted(fresh, key=lambda each: (-sign * each[1], each[0]))[:SHOWN]
        self.worst = sorted([*self.worst, *map(_picked, low)], key=lambda p: (sign * p.score, p.key))[:SHOWN]
        self.best = sorted([*self.best, *map(_picked, high)], key=lambda p: (-sign * p.score, p.key))[:SHOWN]


class LabelPicks(RecordPicks):
    """Share of right pixels of each record, where any counts."""

    __slots__ = ()

    def add(self, key: str, predicted_YX: Tensor, labels_YX: Tensor) -> None:
        """Args: both uint8 of one size, on one device; 255 of the truth is not counted."""
        counted = labels_YX != _IGNORED
        share = ((predicted_YX == labels_YX) & counted).sum() / counted.sum()  # NaN where none counts
        self.add_scored(key, share, labels_YX, predicted_YX)


def _picked(each: tuple[str, float, Tensor, Tensor]) -> PickedRecord:
    key, score, truth, predicted = each
    of_truth = truth.cpu().numpy().copy()
    return PickedRecord(key, score, of_truth, predicted.cpu().numpy().astype(of_truth.dtype))
