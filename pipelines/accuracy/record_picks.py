"""Score of each record, and the best and the worst ones as small label maps.

Scores stay on the device until FLUSHED records are there, so that a GPU is waited for once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SHOWN = 8
"""Best and worst records that are kept, each."""
FLUSHED = 64
_SIDE_CELLS = 384
"""Longest side of a label map that is kept, at most."""
_IGNORED = 255
Labels = npt.NDArray[np.uint8]
ImageOf = Callable[[str, tuple[int, int]], npt.NDArray[np.uint8]]
"""Key and size of a record -> its RGB (H, W, 3) of that size; grey where the image is not at hand."""


@dataclass(frozen=True, slots=True, eq=False)
class PickedRecord:
    """A record, its truth and its prediction, thinned out to one size."""

    key: str
    score: float
    truth_YX: Labels
    predicted_YX: Labels


@dataclass(slots=True)
class LabelPicks:
    """Share of right pixels of each record, where any counts."""

    scores: dict[str, float] = field(default_factory=dict)
    worst: list[PickedRecord] = field(default_factory=list)
    """The worst first."""
    best: list[PickedRecord] = field(default_factory=list)
    """The best first."""
    _waiting: list[tuple[str, Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add(self, key: str, predicted_YX: Tensor, labels_YX: Tensor) -> None:
        """Args: both uint8 of one size, on one device; 255 of the truth is not counted."""
        counted = labels_YX != _IGNORED
        share = ((predicted_YX == labels_YX) & counted).sum() / counted.sum()  # NaN where none counts
        step = -(-max(labels_YX.shape) // _SIDE_CELLS)
        self._waiting.append((key, share, labels_YX[::step, ::step], predicted_YX[::step, ::step]))
        if len(self._waiting) >= FLUSHED:
            self.flush()

    def flush(self) -> None:
        """Takes what is waiting on the device."""
        if not self._waiting:
            return
        shares = torch.stack([share for _, share, *_ in self._waiting]).tolist()
        fresh = []
        for (key, _, truth, predicted), share in zip(self._waiting, shares, strict=True):
            if share == share:
                self.scores[key] = share
                fresh.append((key, share, truth, predicted))
        self._waiting = []
        low = sorted(fresh, key=lambda each: (each[1], each[0]))[:SHOWN]
        high = sorted(fresh, key=lambda each: (-each[1], each[0]))[:SHOWN]
        self.worst = sorted([*self.worst, *map(_picked, low)], key=lambda p: (p.score, p.key))[:SHOWN]
        self.best = sorted([*self.best, *map(_picked, high)], key=lambda p: (-p.score, p.key))[:SHOWN]


def _picked(each: tuple[str, float, Tensor, Tensor]) -> PickedRecord:
    key, share, truth, predicted = each
    return PickedRecord(key, share, truth.cpu().numpy().copy(), predicted.cpu().numpy().astype(np.uint8))
