"""The targets of instances without masks: what a row holds of boxes alone.

The same names and meanings as with masks (`extract.datasets.coco`), but for the masks' own. A box is scaled,
cropped and flipped as it is, not recomputed from pixels, so that it keeps its fractions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.views.instance_targets import Survey, is_trainable, ragged_target
from extract.views.instances import Floats, Instances
from extract.views.view import View
from stores.format.plan import DenseTarget, Target
from stores.subsets import LISTED

LEAST_SIDE_PX = 0.01
"""Smaller boxes of a view are dropped: mmdetection@19bceba configs/common/lsj-100e_coco-instance.py,
FilterAnnotations."""


def target_specs(survey: Survey, with_original: bool) -> tuple[Target, ...]:
    """See Dataset.target_specs."""
    singles, crowds = survey.most(~survey.crowd), survey.most(survey.crowd)
    found: list[Target] = [
        DenseTarget(LISTED, "int64", (2,)),
        ragged_target("boxes", "float32", 4, singles),
        ragged_target("labels", "int64", None, singles),
        ragged_target("crowd_boxes", "float32", 4, crowds),
    ]
    if with_original:
        most = survey.most(np.ones_like(survey.crowd))
        found += [
            ragged_target("original_xywh", "float64", 4, most),
            ragged_target("original_labels", "int64", None, most),
            ragged_target("original_crowd", "uint8", None, most),
            ragged_target("original_area", "float64", None, most),
            ragged_target("original_ids", "int64", None, most),
            DenseTarget("image_id", "int64", ()),
        ]
    return tuple(found)


def targets(truth: Instances, view: View) -> Mapping[str, npt.NDArray[Any]]:
    """See Dataset.targets."""
    boxes_K4 = seen_boxes(truth.extents(), truth.original_hw, view)
    kept = is_trainable(truth) & (boxes_K4[:, 2:] - boxes_K4[:, :2] >= LEAST_SIDE_PX).all(axis=1)
    singles = kept & ~truth.crowd
    return {
        "boxes": boxes_K4[singles].astype(np.float32),
        "labels": truth.labels[singles],
        "crowd_boxes": boxes_K4[kept & truth.crowd].astype(np.float32),
        LISTED: np.array(truth.listed, np.int64),
        "image_id": np.array(truth.image_id, np.int64),
        "original_xywh": truth.xywh,
        "original_labels": truth.labels,
        "original_crowd": truth.crowd.astype(np.uint8),
        "original_area": truth.area,
        "original_ids": truth.ids,
    }


def seen_boxes(boxes_K4: Floats, original_hw: Sequence[int], view: View) -> Floats:
    """Boxes x1 y1 x2 y2 of the original image under a view: float64 (K, 4); of no size where none is left."""
    scale_y, scale_x = (new / old for new, old in zip(view.resized_hw, original_hw, strict=True))
    (crop_y, crop_x), (height, width) = view.crop_yx, view.valid_hw
    moved_K4 = boxes_K4 * (scale_x, scale_y, scale_x, scale_y) - (crop_x, crop_y, crop_x, crop_y)
    clipped_K4: Floats = np.clip(moved_K4, 0, (width, height, width, height))
    if view.flip:
        clipped_K4[:, [0, 2]] = width - clipped_K4[:, [2, 0]]
    return clipped_K4
