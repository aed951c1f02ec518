"""Measuring a segmentation head on test views, wherever these come from: one record at a time, at its own
size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heads.contract import Head
from pipelines.exit_codes import UsageError
from pipelines.metrics import Confusion
from pipelines.store_feed import dequantise
from stores.errors import LevelMissing
from stores.reader import Store

FLIP_PARAM = "flip"


@dataclass(frozen=True, kw_only=True, slots=True)
class TestView:
    """One view of a test record, as a head sees it."""

    __test__ = False  # not a test case of pytest

    key: str
    features: dict[str, Tensor]
    """Level -> (1, C, H, W) on the head's device."""
    valid_hw: tuple[int, int]
    is_flipped: bool
    labels: Tensor
    """uint8 (H0, W0): the record's untouched label map, the same for all its views."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What a head scores on a test split."""

    miou: float
    pixel_accuracy: float
    iou_by_class: list[float | None]
    """None for a class that occurs neither in the truth nor in a prediction."""
    intersections: list[int]
    unions: list[int]
    records: int
    views: str
    """single or ms+flip."""


def measure(
    head: Head, views: Iterable[TestView], *, views_name: str, device: torch.device, bf16: bool
) -> Figures:
    """mIoU and pixel accuracy over all records, at their original resolution.

    Args:
        head: in evaluation mode, on `device`.
        views: the views of one record follow each other.
    """
    counts, records = Confusion(head.num_classes, device), 0
    for _, probabilities_KHW, labels_HW in record_probabilities(head, views, device=device, bf16=bf16):
        counts.update(probabilities_KHW.argmax(0), labels_HW.to(device))
        records += 1
    return Figures(
        miou=counts.miou(),
        pixel_accuracy=counts.pixel_accuracy(),
        iou_by_class=counts.iou(),
        intersections=counts.intersections(),
        unions=counts.unions(),
        records=records,
        views=views_name,
    )


def record_probabilities(
    head: Head, views: Iterable[TestView], *, device: torch.device, bf16: bool
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(key, class scores (K, H0, W0), labels (H0, W0)) of each record: the mean over its views, unflipped.

    As mmseg's `aug_test`. Holds one sum and one view at a time, whatever the number of views.
    """
    for key, of_record in groupby(views, key=lambda view: view.key):
        total_KHW, count = None, 0
        for view in of_record:
            part_KHW = _view_probabilities(head, view, device=device, bf16=bf16)
            total_KHW = part_KHW if total_KHW is None else total_KHW.add_(part_KHW)
            labels_HW, count = view.labels, count + 1
        assert total_KHW is not None
        yield key, total_KHW.div_(count) if count > 1 else total_KHW, labels_HW


def _view_probabilities(head: Head, view: TestView, *, device: torch.device, bf16: bool) -> Tensor:
    height, width = view.labels.shape
    with torch.no_grad(), _autocast(device, bf16):
        probabilities_KHW: Tensor = head.predict(view.features, [view.valid_hw], [(height, width)])[0]
    return probabilities_KHW.flip(-1) if view.is_flipped else probabilities_KHW


def _autocast(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()


def store_views(store: Store, levels: Sequence[str], device: torch.device) -> Iterator[TestView]:
    """The test views of a store, those of one record together, in the order of its records."""
    flip_column = _flip_column(store)
    labels: Mapping[str, npt.NDArray[Any]] = {}
    shown = None
    for row in _rows_by_record(store):
        if store.keys[row] != shown:
            shown, labels = store.keys[row], store.read_targets([row], ("original_labels",))[0]
        encoded = store.read_encoded([row], tuple(levels))
        on_device = {level: _to_device(parts, device) for level, parts in encoded.items()}
        height, width = store.valid_hw[row]
        yield TestView(
            key=store.keys[row],
            features={level: dequantise(parts) for level, parts in on_device.items()},
            valid_hw=(int(height), int(width)),
            is_flipped=flip_column is not None and bool(store.params[row, flip_column]),
            labels=torch.from_numpy(np.ascontiguousarray(labels["original_labels"])),
        )


def _rows_by_record(store: Store) -> list[int]:
    """Row numbers with the views of a record together; bins scatter them over the store."""
    rows_of: dict[str, list[int]] = {}
    for row in range(len(store)):
        rows_of.setdefault(store.keys[row], []).append(row)
    return [row for rows in rows_of.values() for row in rows]


def _flip_column(store: Store) -> int | None:
    names = store.plan.view_params
    return names.index(FLIP_PARAM) if FLIP_PARAM in names else None


def _to_device(parts: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array).to(device) for name, array in parts.items()}


def check_levels(store: Store, levels: Sequence[str]) -> None:
    """Raises LevelMissing, naming store and levels, where a head could not be measured on it."""
    if missing := [level for level in levels if level not in store.levels]:
        raise LevelMissing(
            f"{store.path} holds {', '.join(store.levels)}; the run's head needs {', '.join(missing)} too"
        )
    if "original_labels" not in store.targets:
        raise UsageError(f"{store.path} is no test store: it holds no label maps of the original size")


def views_name(store: Store) -> str:
    """single, or ms+flip where the store holds several views of a record."""
    return "single" if store.view_count == 1 else "ms+flip"
