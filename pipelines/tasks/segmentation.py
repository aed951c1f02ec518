"""Semantic segmentation: label maps in, mIoU at original resolution out."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heads.contract import Head
from heads.segmentation.base import SegmentationHead
from heads.segmentation.row_bands import ScoreBands, best_class, joined, stacked_labels
from pipelines.accuracy.record_picks import ImageOf, LabelPicks
from pipelines.accuracy.record_scores import write_record_scores
from pipelines.json_output import write_json
from pipelines.machine.devices import autocast
from pipelines.metrics.merge_windows import WindowSum, is_window
from pipelines.metrics.pixel_scores import PIXEL_SCORES, class_iou, intersections, unions
from pipelines.metrics.segmentation import Confusion
from pipelines.tasks.contract import (
    IMAGE_ENDINGS,
    Arrays,
    TestView,
    joined_features,
    percent,
    same_shapes,
)
from pipelines.tasks.info.segmentation import INFO

if TYPE_CHECKING:
    from pipelines.live.run_model import RunModel

_SHOWN_CLASSES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationFigures:
    """Scores of a segmentation head."""

    values: Mapping[str, float | None]
    """By the names of `PIXEL_SCORES`; None where no pixel has a label that counts."""
    iou_by_class: list[float | None]
    """None for a class that occurs neither in the truth nor in a prediction."""
    intersections: list[int]
    unions: list[int]
    records: int
    views: str
    picks: LabelPicks = dataclasses.field(default_factory=LabelPicks, compare=False)
    """Share of right pixels of each record, and the best and worst ones."""

    def scores(self) -> Mapping[str, float | None]:
        return self.values

    def line(self) -> str:
        first, *others = ((name.replace("_", " "), percent(value)) for name, value in self.values.items())
        nothing = ": no pixel has a label that counts" if None in self.values.values() else ""
        return (
            f"{first[0]} {first[1]} ({self.views}) "
            + " ".join(f"{name} {value}" for name, value in others)
            + f", {self.records} records{nothing}"
        )

    def summary(self) -> Mapping[str, Any]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "picks"}
        return {**{name.lower(): value for name, value in fields.pop("values").items()}, **fields}

    def write(self, folder: Path, suffix: str, class_names: Sequence[str]) -> None:
        """classes.csv: IoU, intersection and union of each class; records.csv: pixel accuracy of each record,
        the worst first."""
        columns = zip(class_names, self.iou_by_class, self.intersections, self.unions, strict=True)
        with (folder / f"classes{suffix}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("class", "name", "iou", "intersection_px", "union_px"))
            for number, (name, iou, intersection, union) in enumerate(columns):
                writer.writerow((number, name, "" if iou is None else iou, intersection, union))
        write_record_scores(folder / f"records{suffix}.csv", "pixel_accuracy", self.picks.scores)

    def draw_records(self, folder: Path, suffix: str, class_names: Sequence[str], image_of: ImageOf) -> None:
        """worst-records.png and best-records.png: image, truth and prediction."""
        # Late: drawing loads PIL, which training does not need.
        from pipelines.pictures.label_maps import overlay
        from pipelines.pictures.records import RecordPicture, write_records

        for name, picked in (("worst", self.picks.worst), ("best", self.picks.best)):
            pictures = []
            for each in picked:
                height, width = each.truth_YX.shape
                rgb = image_of(each.key, (height, width))
                rows = {
                    "image": rgb,
                    "truth": np.asarray(overlay(rgb, each.truth_YX)),
                    "prediction": np.asarray(overlay(rgb, each.predicted_YX)),
                }
                pictures.append(RecordPicture(each.key, f"{percent(each.score)} % of its pixels", rows))
            maps = [part for each in picked for part in (each.truth_YX, each.predicted_YX)]
            labels = np.unique(np.concatenate([part.ravel() for part in maps])).tolist() if maps else []
            write_records(folder / f"{name}-records{suffix}.png", pictures, labels, class_names)


class Segmentation:
    """The task; see `pipelines.tasks.contract.Task`."""

    training_targets = ("labels",)
    test_targets = ("original_labels",)
    info = INFO
    source_kind = "images"
    source_endings = IMAGE_ENDINGS

    def head_targets(self, stored: Arrays) -> Arrays:
        return stored

    def made_targets(
        self, rows: int, hw: tuple[int, int], num_classes: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        # Regions of 32 px: some heads' losses follow from how many classes an image shows.
        coarse = torch.randint(0, num_classes, (rows, hw[0] // 32, hw[1] // 32), generator=generator)
        labels = coarse.repeat_interleave(32, 1).repeat_interleave(32, 2).to(torch.uint8)
        return [{"labels": each} for each in labels]

    def measure(
        self, head: Head, views: Iterable[TestView], *, views_name: str, device: torch.device, bf16: bool
    ) -> SegmentationFigures:
        counts, records, picks = Confusion(head.num_classes, device), 0, LabelPicks()
        for view, predicted_HW in record_labels(head, views, device=device, bf16=bf16):
            labels_HW = labels_of(view, device).to(device)
            counts.update(predicted_HW, labels_HW)
            picks.add(view.key, predicted_HW, labels_HW)
            records += 1
        picks.flush()
        counts_KK = counts.on_host()
        return SegmentationFigures(
            values={name: score(counts_KK) for name, score in PIXEL_SCORES.items()},
            iou_by_class=class_iou(counts_KK),
            intersections=intersections(counts_KK),
            unions=unions(counts_KK),
            records=records,
            views=views_name,
            picks=picks,
        )

    def write_prediction(self, model: RunModel, source: Path, base: Path) -> dict[str, Any]:
        """The picture under its classes, the label map (uint8, one class a pixel, with a palette), the shares
        of the classes, and which value of a label map is which class.

        They are `<base>.overlay.png`, `<base>.labels.png`, `<base>.json` and, of the whole folder,
        `labels.csv`.
        """
        # Late: training from a store must not load an image decoder.
        from pipelines.live.image_files import read_image
        from pipelines.pictures.label_maps import name_classes, overlay, write_label_map, write_legend
        from pipelines.pictures.legend import with_legend
        from pipelines.pictures.palette import palette

        rgb = read_image(source)
        found = model.predict_labels(rgb)
        labels = found.labels_YX.to("cpu").numpy()
        picture = overlay(rgb, labels)
        name_classes(picture, labels, model.class_names)
        counts = _class_counts(labels, len(model.class_names))
        present = sorted(np.flatnonzero(counts), key=lambda label: -counts[label])
        with_legend(picture, [int(label) for label in present], model.class_names).save(f"{base}.overlay.png")
        write_label_map(Path(f"{base}.labels.png"), labels)
        write_legend(base.parent / "labels.csv", model.class_names)
        summary = {
            "image": str(source),
            "height": rgb.shape[0],
            "width": rgb.shape[1],
            "mean_confidence": found.mean_confidence,
            "classes": [
                {
                    "class": int(label),
                    "name": model.class_names[label],
                    "share": float(counts[label] / labels.size),
                    "colour": list(map(int, palette()[label])),
                }
                for label in present
            ],
        }
        write_json(Path(f"{base}.json"), summary)
        return summary

    def describe_prediction(self, summary: Mapping[str, Any]) -> str:
        shown = summary["classes"][:_SHOWN_CLASSES]
        return ", ".join(f"{100 * item['share']:.0f} % {item['name']}" for item in shown)


def _class_counts(labels: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.int64]:
    """Pixels of each class; row by row, for `bincount` makes int64 of what it counts."""
    counts = np.zeros(max(classes, 256), np.int64)
    for row in labels:
        counts += np.bincount(row, minlength=len(counts))
    return counts[:classes]


def record_labels(
    head: Head, views: Iterable[TestView], *, device: torch.device, bf16: bool
) -> Iterator[tuple[TestView, Tensor]]:
    """The first view of each record and the record's predicted classes, uint8 (H0, W0), on the device.

    The class of a pixel is the first of those with the largest score, the mean over the record's views, see
    `record_scores`. Of a single view the logits decide, as mmseg's do: no softmax is computed, classes whose
    probabilities round to one number are kept apart, and no more than a band of them is in memory. Waits for
    no device.
    """
    for view, of_record in _by_record(_predicted(head, views, device=device, bf16=bf16)):
        if of_record.is_plain:
            bands = (best_class(band_KrX)[0] for band_KrX in of_record.first.raw)
            with torch.no_grad():
                labels_HW = stacked_labels(bands, view.original_hw)
        else:
            labels_HW = best_class(of_record.mean_scores(head, device))[0]
        yield view, labels_HW


def record_scores(
    head: Head, views: Iterable[TestView], *, device: torch.device, bf16: bool
) -> Iterator[tuple[TestView, Tensor]]:
    """The first view of each record and the record's class scores (K, H0, W0): the mean over its views,
    unflipped.

    As mmseg's `aug_test`; of sliding windows the mean where they overlap, see
    pipelines/metrics/merge_windows.py. Holds one sum and the scores of one view, whatever their number.
    """
    for view, of_record in _by_record(_predicted(head, views, device=device, bf16=bf16)):
        yield view, of_record.mean_scores(head, device)


def labels_of(view: TestView, device: torch.device) -> Tensor:
    """The truth, uint8 (H0, W0), on its way to the device."""
    labels_HW = torch.from_numpy(np.ascontiguousarray(view.truth["original_labels"]))
    return labels_HW.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else labels_HW


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Record:
    """The predictions of one record's views."""

    view: TestView
    """The first one."""
    first: ScoreBands
    """Its scores; of a window `view_scores` in one band."""
    others: Iterator[tuple[TestView, ScoreBands]]
    """The same of the other views."""
    is_plain: bool
    """Whether there is one view, which shows the image as it is."""

    def mean_scores(self, head: Head, device: torch.device) -> Tensor:
        """(K, H0, W0), in fresh memory."""
        every = chain(((self.view, self.first),), self.others)
        if is_window(self.view.params, self.view.valid_hw):
            return _of_windows(head, every, device)
        total_KHW, count = None, 0
        for view, bands in every:
            with torch.no_grad():
                part_KHW = joined(bands, head.num_classes, view.original_hw)
            part_KHW = part_KHW.flip(-1) if view.params.get("flip") else part_KHW
            total_KHW = part_KHW if total_KHW is None else total_KHW.add_(part_KHW)
            count += 1
        assert total_KHW is not None
        return total_KHW.div_(count) if count > 1 else total_KHW


def _by_record(predicted: Iterator[tuple[TestView, ScoreBands]]) -> Iterator[tuple[TestView, _Record]]:
    for _, group in groupby(predicted, key=lambda each: each[0].key):
        of_record = iter(group)
        view, first = next(of_record)
        second = list(islice(of_record, 1))
        shown_as_it_is = not view.params.get("flip") and not is_window(view.params, view.valid_hw)
        yield (
            view,
            _Record(
                view=view,
                first=first,
                others=chain(second, of_record),
                is_plain=not second and shown_as_it_is,
            ),
        )


def _predicted(
    head: Head, views: Iterable[TestView], *, device: torch.device, bf16: bool
) -> Iterator[tuple[TestView, ScoreBands]]:
    """Each view with its class scores; views of one shape go through the head together."""
    assert isinstance(head, SegmentationHead)
    for windows, together in _windows_apart(same_shapes(views)):
        if windows:
            for view in together:
                with autocast(device, bf16):
                    scores_KYX = head.view_scores(view.features, [view.valid_hw])
                yield view, ScoreBands(iter((scores_KYX,)))
            continue
        sizes = [view.valid_hw for view in together]
        bands = head.predict_bands(joined_features(together), sizes, [view.original_hw for view in together])
        for view in together:
            # Entered for each view: a caller must not find itself inside of them.
            with torch.no_grad(), autocast(device, bf16):
                of_view = next(bands)
            yield view, of_view


def _windows_apart(batches: Iterable[list[TestView]]) -> Iterator[tuple[bool, list[TestView]]]:
    """Each batch in runs of windows and of whole images, as a square image's only window shows."""
    for together in batches:
        for windows, run in groupby(together, key=lambda view: is_window(view.params, view.valid_hw)):
            yield windows, list(run)


def _of_windows(head: Head, windows: Iterable[tuple[TestView, ScoreBands]], device: torch.device) -> Tensor:
    """Class scores (K, H0, W0) of an image of which each view is a window."""
    assert isinstance(head, SegmentationHead)
    found: WindowSum | None = None
    for view, (scores_KYX,) in windows:
        params = {name: int(view.params[name]) for name in ("resized_y", "resized_x", "crop_y", "crop_x")}
        if found is None:
            resized_hw = (params["resized_y"], params["resized_x"])
            found, original_hw = WindowSum(head.num_classes, resized_hw, device), view.original_hw
        found.add(scores_KYX, (params["crop_y"], params["crop_x"]))
    assert found is not None
    return head.finished(found.mean(original_hw))


TASK = Segmentation()
