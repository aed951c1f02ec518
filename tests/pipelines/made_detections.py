"""Made instances and detections of known worth, and the official files as this project has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from pipelines.metrics.coco_results import Detections, Truth, mask_bitmap, mask_counts

SIZE_HW = (60, 80)


def disc(y: float, x: float, radius: float, size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray[Any, Any]:
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    return (np.hypot(rows - y, columns - x) <= radius).astype(np.uint8)


def truth_of_masks(
    image_id: int, masks: Sequence[Any], labels: Sequence[int], crowd: Sequence[bool] | None = None
) -> Truth:
    """The truth of bitmaps (H, W): tight boxes, areas by counting."""
    counts = mask_counts(np.array(masks, np.uint8).reshape(-1, *SIZE_HW))
    encoded = [{"size": list(SIZE_HW), "counts": each} for each in counts]
    return Truth(
        image_id=image_id,
        original_hw=SIZE_HW,
        xywh=np.array([coco_mask.toBbox(each) for each in encoded], np.float64).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        crowd=np.array(crowd or [False] * len(labels), bool),
        area=np.array([float(coco_mask.area(each)) for each in encoded], np.float64),
        counts=counts,
    )


def truths_of_file(path: Path, category_ids: Sequence[int]) -> list[Truth]:
    """Every image of an official instances file, by pycocotools' own conversion of its masks."""
    from pycocotools.coco import COCO

    coco = COCO(str(path))
    truths = []
    for image_id, image in sorted(coco.imgs.items()):
        found = coco.imgToAnns[image_id]
        truths.append(
            Truth(
                image_id=image_id,
                original_hw=(image["height"], image["width"]),
                xywh=np.array([each["bbox"] for each in found], np.float64).reshape(-1, 4),
                labels=np.array([category_ids.index(each["category_id"]) for each in found], np.int64),
                crowd=np.array([each["iscrowd"] for each in found], bool),
                area=np.array([each["area"] for each in found], np.float64),
                counts=tuple(coco.annToRLE(each)["counts"] for each in found),
            )
        )
    return truths


def perfect(truth: Truth) -> Detections:
    """The truth as detections, crowds left out, the scores falling."""
    kept = np.flatnonzero(~truth.crowd)
    xywh = truth.xywh[kept]
    return Detections(
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32),
        scores=np.linspace(0.9, 0.5, len(kept), dtype=np.float32),
        labels=truth.labels[kept],
        counts=tuple(truth.counts[number] for number in kept),
    )


def disturbed(truth: Truth, seed: int) -> Detections:
    """Detections as a fair head has them: moved boxes and masks, wrong and repeated ones, a few left out."""
    rng, found = np.random.default_rng([seed, truth.image_id % 2**31]), perfect(truth)
    number = len(found)
    if not number:
        return found
    chosen = rng.choice(number, size=rng.integers(number, 2 * number + 1))
    sizes = np.tile(found.boxes[:, 2:] - found.boxes[:, :2], 2)
    boxes = found.boxes[chosen] + rng.normal(0, 0.08, (len(chosen), 4)) * sizes[chosen]
    labels = np.where(rng.random(len(chosen)) < 0.2, found.labels[chosen[::-1]], found.labels[chosen])
    masks = [
        np.roll(mask_bitmap(found.counts[each], truth.original_hw), rng.integers(-6, 7, 2), (0, 1))
        for each in chosen
    ]
    return Detections(
        boxes=boxes.astype(np.float32),
        scores=rng.uniform(0.05, 1, len(chosen)).astype(np.float32),
        labels=labels.astype(np.int64),
        counts=mask_counts(np.array(masks)),
    )


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
