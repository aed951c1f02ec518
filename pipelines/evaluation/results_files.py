"""Official results files of test splits whose truth is not published: predictions without scores.

Detection: `results-bbox-<split>.json` and `results-segm-<split>.json` in COCO's format, which its server
takes as detections_<split>_<method>_results.json in a zip. Segmentation: `results-<split>/<key>.png`, a
label map of each image with the values that the data set's own label maps have, as ADE20K's, Cityscapes' and
VOC's servers take them. Depth: `results-<split>/<key>.png`, 16 bits in the data set's unit, 0 outside of what
views show. Classification and video: `results-<split>.csv`, the five most likely classes.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heads.contract import Head
from heads.depth.base import DepthHead
from pipelines.errors import UsageError
from pipelines.metrics.coco_results import box_entries, mask_entries, write_results
from pipelines.tasks import TestView, task_for
from pipelines.tasks.contract import Arrays
from pipelines.tasks.depth import record_depths, stored_units
from pipelines.tasks.detection import record_detections
from pipelines.tasks.segmentation import record_labels


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What a results file is made of."""

    dataset: Mapping[str, Any]
    """Of the run's identity."""
    folder: Path
    suffix: str
    """Of the files' names: the split, and the views where they are not single."""
    device: torch.device
    bf16: bool
    values: Sequence[int]
    """Of each label: its value in label maps, or its category id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """What was written."""

    files: tuple[Path, ...]
    """Or the folder of the files."""
    records: int


def write_results_files(head: Head, views: Iterable[TestView], predicted: Predicted) -> Results:
    """The results of a head on the views, those of one record together.

    Raises UsageError for a task of another package, of which no results file is known.
    """
    task = str(predicted.dataset["task"])
    if task not in _WRITERS:
        raise UsageError(
            f"--no-truth: of task {task} no results file is known; known are {', '.join(_WRITERS)}"
        )
    return _WRITERS[task](head, views, predicted)


def _detection(head: Head, views: Iterable[TestView], predicted: Predicted) -> Results:
    boxes: list[dict[str, Any]] = []
    masks: list[dict[str, Any]] = []
    records, has_masks = 0, True
    blank = _with_truth(views, _no_instances)
    ordered = sorted(
        record_detections(head, blank, device=predicted.device, bf16=predicted.bf16),
        key=lambda record: record[0],
    )
    for _, truth, found in ordered:
        boxes += box_entries(truth.image_id, found, predicted.values)
        masks += mask_entries(truth.image_id, truth.original_hw, found, predicted.values)
        records, has_masks = records + 1, has_masks and found.counts is not None
    files = []
    for kind, entries in (("bbox", boxes), *([("segm", masks)] if has_masks else [])):
        path = predicted.folder / f"results-{kind}{predicted.suffix}.json"
        write_results(path, entries)
        files.append(path)
    return Results(files=tuple(files), records=records)


def _segmentation(head: Head, views: Iterable[TestView], predicted: Predicted) -> Results:
    from PIL import Image  # late: training from a store must not load an image decoder

    values = np.array(predicted.values)
    value_of = values.astype(np.uint8 if values.max() < 256 else np.uint16)
    folder, records = predicted.folder / f"results{predicted.suffix}", 0
    for view, labels_HW in record_labels(head, views, device=predicted.device, bf16=predicted.bf16):
        path = folder / f"{view.key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(value_of[labels_HW.cpu().numpy()]).save(path)
        records += 1
    return Results(files=(folder,), records=records)


def _classes(head: Head, views: Iterable[TestView], predicted: Predicted) -> Results:
    blank = _with_truth(views, lambda view: {"original_label": np.array(0, np.int64)})
    figures: Any = task_for(predicted.dataset).measure(
        head, blank, views_name="", device=predicted.device, bf16=predicted.bf16
    )
    names, path = predicted.dataset["class_names"], predicted.folder / f"results{predicted.suffix}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("key", "rank", "class", "name", "probability"))
        for record in figures.named:
            for rank, (label, share) in enumerate(
                zip(record.best, record.probabilities, strict=True), start=1
            ):
                writer.writerow((record.key, rank, label, names[label], f"{share:.6f}"))
    return Results(files=(path,), records=len(figures.named))


def _depth(head: Head, views: Iterable[TestView], predicted: Predicted) -> Results:
    from PIL import Image  # late: training from a store must not load an image decoder

    assert isinstance(head, DepthHead)
    units, records = head.depth_settings.units_per_m, 0
    folder = predicted.folder / f"results{predicted.suffix}"
    found = record_depths(head, views, device=predicted.device, bf16=predicted.bf16)
    for view, (top, bottom, left, right), depth_YX in found:
        whole = np.full(view.original_hw, np.nan, np.float32)
        whole[top:bottom, left:right] = depth_YX.cpu().numpy()
        path = folder / f"{view.key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stored_units(whole, units)).save(path)
        records += 1
    return Results(files=(folder,), records=records)


_WRITERS: Mapping[str, Callable[[Head, Iterable[TestView], Predicted], Results]] = {
    "detection": _detection,
    "segmentation": _segmentation,
    "depth": _depth,
    "classification": _classes,
    "video": _classes,
}
"""By task."""


def _with_truth(views: Iterable[TestView], blank: Callable[[TestView], Arrays]) -> Iterator[TestView]:
    """The views with a truth that says nothing, for code that reads one beside the predictions. What a store
    has of a truth does not stay."""
    for view in views:
        yield replace(view, truth=blank(view))


def _no_instances(view: TestView) -> Arrays:
    none = np.zeros(0)
    return {
        "image_id": view.truth["image_id"],
        "original_xywh": none.reshape(0, 4),
        "original_labels": none.astype(np.int64),
        "original_crowd": none.astype(np.uint8),
        "original_area": none,
    }
