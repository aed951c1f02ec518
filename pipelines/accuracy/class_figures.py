"""Figures of a classification: top-1, top-5, mean per class, and their tables by class and by record."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.accuracy.named_pictures import ViewOf, draw_named_records
from pipelines.accuracy.named_records import (
    TOP,
    Counts,
    Named,
    confusion_of,
    mean_per_class,
    shares_by_class,
    top_share,
)
from pipelines.units import percent


@dataclass(frozen=True, kw_only=True)  # no slots: the matrix is counted once
class ClassFigures:
    """Scores of a classification; `Figures` of its task."""

    named: tuple[Named, ...]
    num_classes: int
    views: str

    @property
    def records(self) -> int:
        return len(self.named)

    @cached_property
    def confusion(self) -> Counts:
        """int64 (K, K): records of each class (row) predicted as each class (column)."""
        return confusion_of(self.named, self.num_classes)

    def scores(self) -> Mapping[str, float | None]:
        return {
            "top-1": top_share(self.named, 1),
            "top-5": top_share(self.named, TOP),
            "mean per class": mean_per_class(self.confusion),
        }

    def line(self) -> str:
        shown = " ".join(f"{name} {percent(value)}" for name, value in self.scores().items())
        nothing = "" if self.named else ": no record to classify"
        return f"{shown} ({self.views}), {self.records} records{nothing}"

    def summary(self) -> Mapping[str, Any]:
        scores = self.scores()
        return {
            "top1": scores["top-1"],
            "top5": scores["top-5"],
            "mean_per_class": scores["mean per class"],
            "top1_by_class": shares_by_class(self.confusion),
            "records_by_class": self.confusion.sum(1).tolist(),
            "records": self.records,
            "views": self.views,
        }

    def write(self, folder: Path, suffix: str, class_names: Sequence[str]) -> None:
        """classes.csv: the scores of each class; records.csv: the predicted classes of each record;
        confusion.png: the most confused classes."""
        from pipelines.pictures.clips import draw_confusion  # matplotlib takes a second to load

        self._write_classes(folder / f"classes{suffix}.csv", class_names)
        with (folder / f"records{suffix}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("key", "class", "taken_for", "probability", "then"))
            for record in self.named:
                likely = [class_names[number] for number in record.best]
                share = f"{record.probabilities[0]:.4f}"
                writer.writerow(
                    (record.key, class_names[record.label], likely[0], share, "; ".join(likely[1:]))
                )
        draw_confusion(self.confusion, class_names, folder / f"confusion{suffix}.png")

    def draw_views(self, folder: Path, suffix: str, class_names: Sequence[str], view_of: ViewOf) -> None:
        """worst-records.png and best-records.png, see `draw_named_records`."""
        draw_named_records(self.named, folder, suffix, class_names, view_of)

    def _write_classes(self, path: Path, class_names: Sequence[str]) -> None:
        among = [0] * self.num_classes
        for record in self.named:
            among[record.label] += record.label in record.best
        seen = self.confusion.sum(1)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("class", "records", "top1_percent", "top5_percent", "most_taken_for", "times"))
            for k, share in enumerate(shares_by_class(self.confusion)):
                wrong = self.confusion[k].copy()
                wrong[k] = 0
                rival = int(wrong.argmax())
                writer.writerow(
                    (
                        class_names[k],
                        int(seen[k]),
                        percent(share),
                        percent(among[k] / seen[k] if seen[k] else None),
                        class_names[rival] if wrong[rival] else "",
                        int(wrong[rival]),
                    )
                )
