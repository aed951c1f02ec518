"""Detection and instance segmentation: boxes and masks in, COCO's average precision out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from heads.contract import Head
from pipelines.accuracy.record_picks import SHOWN, ImageOf
from pipelines.accuracy.record_scores import record_f1, write_record_scores
from pipelines.json_output import write_json
from pipelines.machine.devices import autocast
from pipelines.metrics.coco_ap import CocoNumbers, best_engine, coco_numbers
from pipelines.metrics.coco_results import (
    Detections,
    Truth,
    box_entries,
    mask_entries,
    truth_as_coco,
    write_results,
)
from pipelines.metrics.merge_views import detections, merged, unflipped
from pipelines.tasks.contract import (
    IMAGE_ENDINGS,
    Arrays,
    TestView,
    joined_features,
    percent,
    same_shapes,
)
from pipelines.tasks.info.detection import INFO

if TYPE_CHECKING:
    from pipelines.live.run_model import RunModel

_SHOWN_RECORDS = 6
_SHOWN_CLASSES = 8
_MADE_INSTANCES = 7
"""Annotated objects of a COCO image: 7.3 on average."""
_MADE_STUFF = 133
"""Classes of made stuff maps."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DetectionFigures:
    """Scores of a detection head."""

    box: CocoNumbers
    mask: CocoNumbers | None
    """None where the truth or the head has no masks."""
    truths: tuple[Truth, ...]
    """Of each record."""
    found: tuple[Detections, ...]
    """Of each record."""
    engine: str
    """What counted."""
    views: str
    category_ids: tuple[int, ...]
    """By label."""

    @property
    def records(self) -> int:
        return len(self.truths)

    def scores(self) -> Mapping[str, float | None]:
        """box AP, mask AP of data with masks, both at IoU 0.5; None where no object is annotated."""
        return {
            f"{kind} {name}": numbers.numbers[name]
            for name in ("AP", "AP50")
            for kind, numbers in (("box", self.box), ("mask", self.mask))
            if numbers is not None
        }

    def line(self) -> str:
        shown = {name: percent(value) for name, value in self.scores().items()}
        nothing = ": no object is annotated" if self.scores()["box AP"] is None else ""
        if self.mask is None:
            return (
                f"box AP {shown['box AP']} ({self.views}) AP50 {shown['box AP50']}, no masks, "
                f"{self.records} records{nothing}"
            )
        return (
            f"box AP {shown['box AP']} mask AP {shown['mask AP']} ({self.views}) "
            f"AP50 {shown['box AP50']} and {shown['mask AP50']}, {self.records} records{nothing}"
        )

    def summary(self) -> Mapping[str, Any]:
        return {
            "box": self.box.numbers,
            "mask": None if self.mask is None else self.mask.numbers,
            "box_ap_by_class": self.box.ap_by_class,
            "mask_ap_by_class": None if self.mask is None else self.mask.ap_by_class,
            "box_precision": self.box.precision,
            "mask_precision": None if self.mask is None else self.mask.precision,
            "detections": sum(map(len, self.found)),
            "records": self.records,
            "views": self.views,
            "engine": self.engine,
        }

    def write(self, folder: Path, suffix: str, class_names: Sequence[str]) -> None:
        """results-bbox.json and results-segm.json in COCO's format; classes.csv: both AP of each class; and
        detections.png: truth and detections of some records on grey, for a store holds no images. Of masks
        nothing where there are none."""
        for kind in ("bbox", "segm") if self.mask else ("bbox",):
            write_results(
                folder / f"results-{kind}{suffix}.json",
                _entries(kind, self.truths, self.found, self.category_ids),
            )
        self._write_classes(folder / f"classes{suffix}.csv", class_names)
        self._draw(folder / f"detections{suffix}.png", class_names)
        write_record_scores(folder / f"records{suffix}.csv", "f1_at_iou_50", self._record_scores())

    def _record_scores(self) -> dict[str, float]:
        pairs = zip(self.truths, self.found, strict=True)
        scores = {truth.key: record_f1(truth, found) for truth, found in pairs}
        return {key: score for key, score in scores.items() if score is not None}

    def draw_records(self, folder: Path, suffix: str, class_names: Sequence[str], image_of: ImageOf) -> None:
        """worst-records.png and best-records.png: truth and detections of the records of lowest and highest
        F1 of what pictures show."""
        # Late: drawing loads PIL, which training does not need.
        from pipelines.pictures.detections import draw_detections, draw_truth
        from pipelines.pictures.records import RecordPicture, write_records

        of_key = {truth.key: (truth, found) for truth, found in zip(self.truths, self.found, strict=True)}
        ordered = sorted(self._record_scores().items(), key=lambda each: (each[1], each[0]))
        for name, chosen in (("worst", ordered[:SHOWN]), ("best", ordered[::-1][:SHOWN])):
            pictures = []
            for key, score in chosen:
                truth, found = of_key[key]
                rgb = image_of(key, truth.original_hw)
                rows = {
                    "truth": draw_truth(rgb, truth, class_names),
                    "detections": draw_detections(rgb, found, class_names),
                }
                pictures.append(RecordPicture(key, f"F1 {score:.2f}", rows))
            write_records(folder / f"{name}-records{suffix}.png", pictures)

    def _write_classes(self, path: Path, class_names: Sequence[str]) -> None:
        counted = [truth.labels[~truth.crowd] for truth in self.truths]
        counts = np.bincount(np.concatenate([*counted, []]).astype(np.int64), minlength=len(class_names))
        of_masks = self.mask.ap_by_class if self.mask else [None] * len(class_names)
        columns = zip(class_names, self.box.ap_by_class, of_masks, counts.tolist(), strict=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("class", "name", "box_ap", "mask_ap", "objects"))
            for number, (name, box, mask, objects) in enumerate(columns):
                writer.writerow((number, name, *("" if ap is None else ap for ap in (box, mask)), objects))

    def _draw(self, path: Path, class_names: Sequence[str]) -> None:
        # Late: drawing loads PIL, which training does not need.
        from pipelines.pictures.detections import blank, draw_detections, draw_truth, write_grid

        shown = list(zip(self.truths, self.found, strict=True))[:_SHOWN_RECORDS]
        canvases = [blank(truth.original_hw) for truth, _ in shown]
        pairs = list(zip(canvases, shown, strict=True))
        write_grid(
            path,
            {
                "truth": [draw_truth(canvas, truth, class_names) for canvas, (truth, _) in pairs],
                "detections": [draw_detections(canvas, found, class_names) for canvas, (_, found) in pairs],
            },
        )


@dataclass(frozen=True, slots=True)
class Categories:
    """What files in COCO's format call the classes, by label."""

    ids: tuple[int, ...]
    names: tuple[str, ...]


class Detection:
    """The task; see `pipelines.tasks.contract.Task`."""

    training_targets = ("boxes", "labels", "mask_bits", "mask_hw", "mask_yx", "stuff")
    test_targets = (
        *("image_id", "original_xywh", "original_labels", "original_crowd", "original_area"),
        *("original_rle", "original_rle_lengths"),
    )
    optional_targets = ("mask_bits", "mask_hw", "mask_yx", "original_rle", "original_rle_lengths", "stuff")
    """What data of boxes alone does not have, and stuff maps, which a store has on request."""
    info = INFO
    source_kind = "images"
    source_endings = IMAGE_ENDINGS

    def __init__(self, categories: Categories | None = None) -> None:
        """Args:
        categories: of the data set; None: ids count from 1 and stand for names.
        """
        self._categories = categories

    def for_dataset(self, dataset: Mapping[str, Any]) -> Detection:
        """The task with the categories of a store's data set, by the `dataset` of its identity."""
        # Late: data sets load an image decoder, which training from a store must not.
        from extract.datasets import category_ids

        return Detection(Categories(category_ids(dataset), tuple(dataset["class_names"])))

    def head_targets(self, stored: Arrays) -> Arrays:
        return stored

    def made_targets(
        self, rows: int, hw: tuple[int, int], num_classes: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        return [_made_row(hw, num_classes, generator) for _ in range(rows)]

    def measure(
        self, head: Head, views: Iterable[TestView], *, views_name: str, device: torch.device, bf16: bool
    ) -> DetectionFigures:
        found = record_detections(head, views, device=device, bf16=bf16)
        pairs = [(truth, each) for _, truth, each in sorted(found, key=lambda record: record[0])]
        categories = self._categories or _numbered(head.num_classes)
        return figures([truth for truth, _ in pairs], [found for _, found in pairs], views_name, categories)

    def write_prediction(self, model: RunModel, source: Path, base: Path) -> dict[str, Any]:
        """The picture with its boxes and masks, and every detection with its run lengths.

        They are `<base>.overlay.png` and `<base>.json`.
        """
        # Late: training from a store must not load an image decoder.
        from pipelines.live.image_files import read_image
        from pipelines.pictures.detections import overlay_picture

        rgb = read_image(source)
        height, width = rgb.shape[:2]
        found = detections(model([rgb])[0], (height, width))
        overlay_picture(rgb, found, model.class_names).save(f"{base}.overlay.png")
        summary = {
            "image": str(source),
            "height": height,
            "width": width,
            "instances": [_instance(found, number, model.class_names) for number in range(len(found))],
        }
        write_json(Path(f"{base}.json"), summary)
        return summary

    def describe_prediction(self, summary: Mapping[str, Any]) -> str:
        # Late: drawing loads PIL, which training does not need.
        from pipelines.pictures.detections import SHOWN_SCORE

        names = [each["name"] for each in summary["instances"] if each["score"] >= SHOWN_SCORE]
        counts = {name: names.count(name) for name in dict.fromkeys(names)}
        shown = [f"{count} {name}" for name, count in counts.items()]
        return ", ".join(shown[:_SHOWN_CLASSES]) or f"nothing of score {SHOWN_SCORE} or more"


def _numbered(count: int) -> Categories:
    """
    >>> _numbered(2)
    Categories(ids=(1, 2), names=('1', '2'))
    """
    return Categories(tuple(range(1, count + 1)), tuple(map(str, range(1, count + 1))))


def figures(
    truths: Sequence[Truth], found: Sequence[Detections], views: str, categories: Categories
) -> DetectionFigures:
    """COCO's numbers of detections, both in the order of their records."""
    ids, engine = categories.ids, best_engine()
    content = truth_as_coco(truths, ids, categories.names)
    has_masks = all(each.counts is not None for each in truths) and all(
        each.counts is not None for each in found
    )
    return DetectionFigures(
        box=coco_numbers(content, _entries("bbox", truths, found, ids), "bbox", engine),
        mask=coco_numbers(content, _entries("segm", truths, found, ids), "segm", engine)
        if has_masks
        else None,
        truths=tuple(truths),
        found=tuple(found),
        engine=engine,
        views=views,
        category_ids=ids,
    )


def record_detections(
    head: Head, views: Iterable[TestView], *, device: torch.device, bf16: bool
) -> Iterator[tuple[int, Truth, Detections]]:
    """Place, truth and detections of each record, its views merged, in original pixels.

    Holds the features of a few views at a time, whatever their number.
    """
    for _, of_record in groupby(_predicted(head, views, device, bf16), key=lambda each: each[0].key):
        shown, predictions = zip(*of_record, strict=True)
        view = shown[0]
        found = detections(merged(predictions), view.original_hw)
        yield view.record, truth_of(view.truth, view.original_hw, view.key), found


def _predicted(
    head: Head, views: Iterable[TestView], device: torch.device, bf16: bool
) -> Iterator[tuple[TestView, Mapping[str, Tensor]]]:
    """Each view with its prediction, unflipped; views of one shape go through the head together."""
    for together in same_shapes(views):
        sizes = [view.valid_hw for view in together]
        with torch.no_grad(), autocast(device, bf16):
            found = head.predict(joined_features(together), sizes, [view.original_hw for view in together])
        for view, prediction in zip(together, found, strict=True):
            flipped = bool(view.params.get("flip"))
            yield view, unflipped(prediction, view.original_hw[1]) if flipped else prediction


def truth_of(stored: Arrays, original_hw: tuple[int, int], key: str = "") -> Truth:
    """What a test row holds of its image's annotation; see `extract.datasets.coco`."""
    return Truth(
        image_id=int(stored["image_id"]),
        original_hw=original_hw,
        xywh=stored["original_xywh"],
        labels=stored["original_labels"],
        crowd=stored["original_crowd"].astype(bool),
        area=stored["original_area"],
        counts=_stored_masks(stored) if "original_rle" in stored else None,
        key=key,
    )


def _stored_masks(stored: Arrays) -> tuple[bytes, ...]:
    stops = np.cumsum([0, *stored["original_rle_lengths"].tolist()]).tolist()
    rle = stored["original_rle"].tobytes()
    return tuple(rle[start:stop] for start, stop in pairwise(stops))


def _entries(
    kind: str, truths: Sequence[Truth], found: Sequence[Detections], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for truth, each in zip(truths, found, strict=True):
        entries += (
            box_entries(truth.image_id, each, category_ids)
            if kind == "bbox"
            else mask_entries(truth.image_id, truth.original_hw, each, category_ids)
        )
    return entries


def _instance(found: Detections, number: int, class_names: Sequence[str]) -> dict[str, Any]:
    x1, y1, x2, y2 = found.boxes[number].tolist()
    label = int(found.labels[number])
    return {
        "class": label,
        "name": class_names[label],
        "score": float(found.scores[number]),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        **({} if found.counts is None else {"counts": found.counts[number].decode("ascii")}),
    }


def _made_row(hw: tuple[int, int], num_classes: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Boxes of a sixteenth to a quarter of the view's sides, and masks that fill them."""
    sides = torch.tensor(hw)
    share_K2 = torch.empty(_MADE_INSTANCES, 2).uniform_(1 / 16, 1 / 4, generator=generator)
    hw_K2 = (share_K2 * sides).long().clamp(min=1)
    yx_K2 = (torch.rand(_MADE_INSTANCES, 2, generator=generator) * (sides - hw_K2)).long()
    mask_bytes = int(((hw_K2.prod(1) + 7) // 8).sum())
    return {
        "boxes": torch.cat([yx_K2.flip(1), (yx_K2 + hw_K2).flip(1)], dim=1).float(),
        "labels": torch.randint(0, num_classes, (_MADE_INSTANCES,), generator=generator),
        "mask_bits": torch.full((mask_bytes,), 255, dtype=torch.uint8),
        "mask_hw": hw_K2.int(),
        "mask_yx": yx_K2.int(),
        "stuff": torch.randint(0, _MADE_STUFF, hw, generator=generator, dtype=torch.uint8),
    }


TASK = Detection()
