"""Targets of instances, and upper bounds of their sizes.

Names and meanings: `extract.datasets.coco`. Caps are upper bounds from annotations and views alone: no mask
is drawn to plan a store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from extract.views.instances import (
    Floats,
    Instances,
    Polygons,
    Seen,
    Shape,
    outline_steps,
    packed,
    packed_bytes,
    seen,
    windows_of,
)
from extract.views.view import VIEW_PARAMS, Hw, View
from stores.format.plan import DenseTarget, RaggedTarget, Target
from stores.subsets import LISTED

Array = npt.NDArray[Any]
Steps = TypeVar("Steps", int, npt.NDArray[np.int64])

_IN_VIEW = {
    "boxes": ("float32", 4),
    "labels": ("int64", None),
    "mask_hw": ("int32", 2),
    "mask_yx": ("int32", 2),
}
_ORIGINAL = {
    "original_xywh": ("float64", 4),
    "original_labels": ("int64", None),
    "original_crowd": ("uint8", None),
    "original_area": ("float64", None),
    "original_ids": ("int64", None),
    "original_rle_lengths": ("int32", None),
}
"""Dtype, and columns, of what has a row for each instance."""
_RUN_BYTES = 6
"""Longest run length in compressed counts: five bits a character, and a run is shorter than 2**27 px."""


ImageSurvey = tuple[Hw, Floats, npt.NDArray[np.bool_], Sequence[int] | npt.NDArray[np.int64]]
"""Of one image: its size; of its K instances the extents, whether each is a crowd, and `rle_bytes`."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Survey:
    """What caps are computed from: all N instances of a data set's records."""

    record: npt.NDArray[np.int64]
    """(N,), the record's index."""
    extents: Floats
    """float64 (N, 4), see Instances.extents."""
    crowd: npt.NDArray[np.bool_]
    rle_bytes: npt.NDArray[np.int64]
    """(N,), no mask's compressed counts are longer."""
    original_hw: Floats
    """float64 (records, 2)."""

    @classmethod
    def of(cls, truths: Iterable[Instances]) -> Survey:
        """Goes through the records once and keeps none of them."""
        return cls.of_images(
            (truth.original_hw, truth.extents(), truth.crowd, rle_bytes(truth)) for truth in truths
        )

    @classmethod
    def of_images(cls, images: Iterable[ImageSurvey]) -> Survey:
        """As `of`, of what is kept of each record."""
        hw, counts, extents, crowd = [], [], [np.zeros((0, 4))], [np.zeros(0, np.bool_)]
        rle_bytes = [np.zeros(0, np.int64)]
        for size, extents_K4, crowd_K, rle_K in images:
            hw.append(size)
            counts.append(len(crowd_K))
            extents.append(extents_K4)
            crowd.append(crowd_K)
            rle_bytes.append(np.asarray(rle_K, np.int64))
        return cls(
            record=np.repeat(np.arange(len(counts)), counts),
            extents=np.concatenate(extents),
            crowd=np.concatenate(crowd),
            rle_bytes=np.concatenate(rle_bytes),
            original_hw=np.array(hw, np.float64).reshape(-1, 2),
        )

    def most(self, kept: npt.NDArray[np.bool_]) -> int:
        """The largest number of these instances in one record."""
        return int(np.bincount(self.record[kept], minlength=1).max())

    def mask_bytes(self, params: Sequence[Floats]) -> int:
        """Upper bound of the bytes of a view's `mask_bits`; `params` as for Dataset.target_specs."""
        views_NVP = np.stack(params)
        largest = 0
        for view in range(views_NVP.shape[1]):
            sizes = {name: _columns(views_NVP[:, view], name) for name in ("resized", "crop", "valid")}
            largest = max(largest, self._mask_bytes(**{name: hw[self.record] for name, hw in sizes.items()}))
        return largest

    def _mask_bytes(self, resized: Floats, crop: Floats, valid: Floats) -> int:
        windows = windows_of(self.extents, self.original_hw[self.record], resized, crop, valid)
        pixels = np.maximum(windows[:, 2:] - windows[:, :2], 0).prod(axis=1) * ~self.crowd
        return int(np.bincount(self.record, packed_bytes(pixels), minlength=1).max())


def _columns(params: Floats, name: str) -> Floats:
    return params[:, [VIEW_PARAMS.index(f"{name}_y"), VIEW_PARAMS.index(f"{name}_x")]]


def rle_bytes(truth: Instances) -> list[int]:
    """Of each mask: its compressed counts are no longer."""
    return [_rle_bytes(shape) for shape in truth.shapes]


def _rle_bytes(shape: Shape) -> int:
    """A polygon's edge meets each of the columns it crosses once, and each meeting ends one run."""
    if not isinstance(shape, Polygons):
        return len(shape.rle((0, 0)))
    steps = sum(float(outline_steps(part)[:, 0].sum()) + 2 * len(part) + 2 for part in shape.parts)
    return rle_bytes_of(math.ceil(steps))


def rle_bytes_of(steps: Steps) -> Steps:
    """Upper bound of the bytes of a mask's compressed counts, from the columns that its outline crosses."""
    return _RUN_BYTES * (steps + 1)


def target_specs(survey: Survey, with_original: bool, params: Sequence[Floats]) -> tuple[Target, ...]:
    """See Dataset.target_specs."""
    single, crowds = survey.most(~survey.crowd), survey.most(survey.crowd)
    found: list[Target] = [DenseTarget(LISTED, "int64", (2,))]
    found += [ragged_target(name, *kind, single) for name, kind in _IN_VIEW.items()]
    found += [
        RaggedTarget("mask_bits", "uint8", (-1,), max(1, survey.mask_bytes(params))),
        ragged_target("crowd_boxes", "float32", 4, crowds),
    ]
    if not with_original:
        return tuple(found)
    most = survey.most(np.ones_like(survey.crowd))
    rle_bytes = int(np.bincount(survey.record, survey.rle_bytes, minlength=1).max())
    found += [ragged_target(name, *kind, most) for name, kind in _ORIGINAL.items()]
    found += [
        RaggedTarget("original_rle", "uint8", (-1,), max(1, rle_bytes)),
        DenseTarget("image_id", "int64", ()),
    ]
    return tuple(found)


def ragged_target(name: str, dtype: str, columns: int | None, rows: int) -> RaggedTarget:
    """A target with a row for each of at most `rows` instances."""
    shape = (-1,) if columns is None else (-1, columns)
    return RaggedTarget(name, dtype, shape, max(rows, 1) * (columns or 1) * np.dtype(dtype).itemsize)


def targets(truth: Instances, view: View) -> Mapping[str, Array]:
    """See Dataset.targets."""
    return {**_in_view(truth, view), **_original(truth)}


def is_trainable(truth: Instances) -> npt.NDArray[np.bool_]:
    """(K,): boxes of at least 1 px in the file, and of some area (mmdet's CocoDataset)."""
    kept: npt.NDArray[np.bool_] = (truth.xywh[:, 2:] >= 1).all(axis=1) & (truth.area > 0)
    return kept


def _in_view(truth: Instances, view: View) -> dict[str, Array]:
    trainable = is_trainable(truth)
    found = [seen(shape, truth.original_hw, view) for shape in truth.shapes]
    singles = [
        (one, label)
        for one, label, crowd, kept in zip(found, truth.labels.tolist(), truth.crowd, trainable, strict=True)
        if one is not None and kept and not crowd
    ]
    crowds = [
        one for one, crowd, kept in zip(found, truth.crowd, trainable, strict=True) if one and kept and crowd
    ]
    return {
        "boxes": _boxes([one for one, _ in singles]),
        "labels": np.array([label for _, label in singles], np.int64),
        **packed([one for one, _ in singles]),
        "crowd_boxes": _boxes(crowds),
        LISTED: np.array(truth.listed, np.int64),
    }


def _boxes(instances: Sequence[Seen]) -> npt.NDArray[np.float32]:
    return np.array([one.box for one in instances], np.float32).reshape(-1, 4)


def _original(truth: Instances) -> dict[str, Array]:
    counts = [shape.rle(truth.original_hw) for shape in truth.shapes]
    return {
        "image_id": np.array(truth.image_id, np.int64),
        "original_xywh": truth.xywh,
        "original_labels": truth.labels,
        "original_crowd": truth.crowd.astype(np.uint8),
        "original_area": truth.area,
        "original_ids": truth.ids,
        "original_rle": np.frombuffer(b"".join(counts), np.uint8),
        "original_rle_lengths": np.array([len(one) for one in counts], np.int32),
    }
