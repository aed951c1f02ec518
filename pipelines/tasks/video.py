"""Video classification: labels in, top-1 and top-5 accuracy of the mean over a record's views out.

Letters in tensor names: N views, C channels, T frames, y x cells, K classes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from heads.contract import Head
from pipelines.accuracy.named_pictures import ViewOf, draw_named_records
from pipelines.accuracy.named_records import (
    TOP,
    Counts,
    Named,
    confusion_of,
    name_record,
    shares_by_class,
    top_share,
)
from pipelines.machine.devices import autocast
from pipelines.tasks.contract import Arrays, TestView, joined_features, percent, same_shapes
from pipelines.tasks.info.video import INFO

if TYPE_CHECKING:
    from pipelines.live.run_model import RunModel


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFigures:
    """Scores of a video head."""

    named: tuple[Named, ...]
    num_classes: int
    views: str

    @property
    def records(self) -> int:
        return len(self.named)

    def top(self, count: int) -> float | None:
        """The share of records whose class is among their `count` most likely; None of no records."""
        return top_share(self.named, count)

    def scores(self) -> Mapping[str, float | None]:
        return {"top-1": self.top(1), "top-5": self.top(TOP)}

    def line(self) -> str:
        top1, top5 = (percent(self.top(count)) for count in (1, TOP))
        nothing = "" if self.named else ": no record to classify"
        return f"top-1 {top1} top-5 {top5} ({self.views}), {self.records} records{nothing}"

    def confusion(self) -> Counts:
        """int64 (K, K): records of each class (row) predicted as each class (column)."""
        return confusion_of(self.named, self.num_classes)

    def summary(self) -> Mapping[str, Any]:
        counts = self.confusion()
        return {
            "top1": self.top(1),
            "top5": self.top(TOP),
            "top1_by_class": shares_by_class(counts),
            "records_by_class": counts.sum(1).tolist(),
            "records": self.records,
            "views": self.views,
        }

    def write(self, folder: Path, suffix: str, class_names: Sequence[str]) -> None:
        """records.csv: the predicted classes of each record; confusion.png: the most confused classes."""
        from pipelines.pictures.clips import draw_confusion  # matplotlib takes a second to load

        with (folder / f"records{suffix}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("key", "class", "taken_for", "probability", "then"))
            for record in self.named:
                likely = [class_names[number] for number in record.best]
                share = f"{record.probabilities[0]:.4f}"
                writer.writerow(
                    (record.key, class_names[record.label], likely[0], share, "; ".join(likely[1:]))
                )
        draw_confusion(self.confusion(), class_names, folder / f"confusion{suffix}.png")

    def draw_views(self, folder: Path, suffix: str, class_names: Sequence[str], view_of: ViewOf) -> None:
        """worst-records.png and best-records.png, see `draw_named_records`."""
        draw_named_records(self.named, folder, suffix, class_names, view_of)


_CLIPS_AT_ONCE = 12
"""Of a record that go through a head together: of SwinV2-B they take 38 MB."""


class Video:
    """The task; see `pipelines.tasks.contract.Task`."""

    training_targets = ("label",)
    test_targets = ("original_label",)
    info = INFO
    source_kind = "videos"
    source_endings = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".flv", ".wmv", ".ts", ".m4v")

    def head_targets(self, stored: Arrays) -> Arrays:
        return {"label": np.asarray(stored["label"], np.int64).reshape(())}

    def made_targets(
        self, rows: int, hw: tuple[int, int], num_classes: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        return [{"label": label} for label in torch.randint(0, num_classes, (rows,), generator=generator)]

    def measure(
        self, head: Head, views: Iterable[TestView], *, views_name: str, device: torch.device, bf16: bool
    ) -> VideoFigures:
        named = [
            name_record(key, label, probabilities_K)
            for key, label, probabilities_K in record_probabilities(head, views, device=device, bf16=bf16)
        ]
        return VideoFigures(named=tuple(named), num_classes=head.num_classes, views=views_name)

    def write_prediction(self, model: RunModel, source: Path, base: Path) -> dict[str, Any]:
        """The most likely classes as `<base>.json`, and beside the frames seen as `<base>.png`."""
        from pipelines.live.predict_video import predict_video  # late: training must not need a decoder

        return predict_video(model, source, base, TOP)

    def describe_prediction(self, summary: Mapping[str, Any]) -> str:
        return ", ".join(f"{100 * item['probability']:.0f} % {item['name']}" for item in summary["classes"])


def record_probabilities(
    head: Head, views: Iterable[TestView], *, device: torch.device, bf16: bool
) -> Iterator[tuple[str, int, Tensor]]:
    """(key, label, class probabilities float32 (K,)) of each record: the mean of its views' softmaxes.

    As mmaction2's `average_clips='prob'`. The views of a record that are of one size go through the head
    together: 12 of SwinV2-B take 38 MB.
    """
    for key, of_record in groupby(views, key=lambda view: view.key):
        parts: list[Tensor] = []
        for together in same_shapes(of_record, most=_CLIPS_AT_ONCE):
            sizes = [view.valid_hw for view in together]
            with torch.no_grad(), autocast(device, bf16):
                parts += head.predict(
                    joined_features(together), sizes, [view.original_hw for view in together]
                )
        label = int(np.asarray(together[0].truth["original_label"]).reshape(()))
        yield key, label, torch.stack(parts).mean(0)


TASK = Video()
