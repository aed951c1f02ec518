"""Records and their most likely classes: what top-1, top-5 and confusion matrices are counted from.

Letters in tensor names: N views, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

TOP = 5
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """One record and its predicted classes."""

    key: str
    label: int
    best: tuple[int, ...]
    """At most TOP classes, most likely first."""
    probabilities: tuple[float, ...]
    """Of those, means over the record's views."""


def name_record(key: str, label: int, probabilities_K: Tensor) -> Named:
    """The most likely classes of a record; of equally likely ones that of the lower number comes first."""
    values, classes = probabilities_K.to("cpu").double().sort(descending=True, stable=True)
    return Named(
        key=key,
        label=label,
        best=tuple(classes[:TOP].tolist()),
        probabilities=tuple(values[:TOP].tolist()),
    )


def top_share(named: Sequence[Named], count: int) -> float | None:
    """The share of records whose class is among their `count` most likely; None of no records."""
    hits = [record.label in record.best[:count] for record in named]
    return float(np.mean(hits)) if hits else None


def confusion_of(named: Sequence[Named], num_classes: int) -> Counts:
    """int64 (K, K): records of each class (row) predicted as each class (column)."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    for record in named:
        counts[record.label, record.best[0]] += 1
    return counts


def shares_by_class(counts: Counts) -> list[float | None]:
    """The share of each class's records that was named right; None of a class without records.

    >>> shares_by_class(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    [0.75, 1.0, None]
    """
    seen = counts.sum(1)
    return [float(counts[k, k] / seen[k]) if seen[k] else None for k in range(len(seen))]


def mean_per_class(counts: Counts) -> float | None:
    """The mean of `shares_by_class` over the classes that occur; None where none does.

    >>> mean_per_class(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    0.875
    """
    known = [share for share in shares_by_class(counts) if share is not None]
    return float(np.mean(known)) if known else None
