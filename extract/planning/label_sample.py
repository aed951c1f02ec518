"""A look at some label maps before anything is planned: which labels occur, and whether they can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from extract.datasets.contract import Dataset
from extract.sources.byte_sources import SourceError, retried
from extract.sources.record import READ_THREADS

SAMPLED_MAPS = 32
"""Label maps that are read; spread evenly over the records."""
IGNORE = 255
_SHOWN = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSample:
    """What the sampled label maps hold."""

    maps: int
    """Read."""
    records: int
    """Of the data set."""
    pixels: Mapping[int, int]
    """By label of the classes that occur, the most frequent first."""
    unlabelled_px: int
    """Pixels of no class."""
    problems: Mapping[str, str]
    """Why maps cannot be used, by record."""
    class_names: Sequence[str]

    @property
    def estimated_failures(self) -> int:
        """Records whose label map cannot be used. A single one of the sample may be an accident."""
        if len(self.problems) < 2:
            return len(self.problems)
        return len(self.problems) * self.records // self.maps

    def line(self) -> str:
        """One line for people."""
        total = sum(self.pixels.values()) + self.unlabelled_px
        shown = [
            f"{self.class_names[label]} {px / total:.0%}" for label, px in list(self.pixels.items())[:_SHOWN]
        ]
        more = f" and {len(self.pixels) - len(shown)} more" if len(self.pixels) > len(shown) else ""
        unlabelled = f"; {self.unlabelled_px / total:.0%} of the pixels have no label" if total else ""
        return (
            f"{len(self.pixels)} of {len(self.class_names)} classes in {self.maps} of {self.records} label "
            f"maps: {', '.join(shown) or 'none'}{more}{unlabelled}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "maps": self.maps,
            "pixels_by_class": {self.class_names[label]: px for label, px in self.pixels.items()},
            "unlabelled_pixels": self.unlabelled_px,
            "problems": dict(self.problems),
        }


def sample_labels(dataset: Dataset) -> LabelSample | None:
    """Reads some of a segmentation's label maps; None for other tasks.

    Maps that are missing are left out: the list of files says so already. Raises OSError.
    """
    if dataset.task != "segmentation" or not getattr(dataset, "has_truth", True):
        return None
    missing: Mapping[str, str] = getattr(dataset, "unusable_records", {})
    there = [index for index, record in enumerate(dataset.records) if record.key not in missing]
    if not there:
        return None
    count = min(SAMPLED_MAPS, len(there))
    chosen = [there[position * len(there) // count] for position in range(count)]

    def counts(index: int) -> np.ndarray[Any, np.dtype[np.int64]] | str:
        key = dataset.records[index].key
        annotation = retried(lambda: dataset.read_annotation(index), f"annotation of {key}")
        try:
            labels = dataset.parse_annotation(index, annotation)
        except SourceError as error:
            return error.reason
        return np.bincount(labels.reshape(-1), minlength=IGNORE + 1)

    total = np.zeros(IGNORE + 1, np.int64)
    problems: dict[str, str] = {}
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for index, found in zip(chosen, pool.map(counts, chosen), strict=True):
            if isinstance(found, str):
                problems[dataset.records[index].key] = found
            else:
                total += found
    present = sorted(np.flatnonzero(total[:IGNORE]).tolist(), key=lambda label: -int(total[label]))
    return LabelSample(
        maps=count,
        records=len(dataset.records),
        pixels={label: int(total[label]) for label in present},
        unlabelled_px=int(total[IGNORE]),
        problems=problems,
        class_names=dataset.class_names,
    )
