"""Detections in COCO's terms: instances on the host, and the official results files.

Boxes are x1 y1 x2 y2 in pixels of the original image here, and x y width height in the files. Masks are
pycocotools' run lengths throughout: an image's hundred bitmaps would take as much memory as its features.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

Hw = tuple[int, int]
Entry = dict[str, Any]
"""One instance of a results file."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Truth:
    """The annotated instances of one image, K of them, in the order of its annotation, crowds among them."""

    image_id: int
    original_hw: Hw
    xywh: npt.NDArray[np.float64]
    """(K, 4) as in the annotation file: x, y, width, height."""
    labels: npt.NDArray[np.int64]
    """(K,), 0-based."""
    crowd: npt.NDArray[np.bool_]
    """(K,)"""
    area: npt.NDArray[np.float64]
    """(K,) as in the annotation file, square pixels: decides small, medium or large."""
    counts: tuple[bytes, ...] | None
    """K masks, pycocotools' compressed run lengths of `original_hw`; None if only boxes are annotated."""
    key: str = ""
    """Of the record."""

    def __post_init__(self) -> None:
        masks = self.labels if self.counts is None else self.counts
        sizes = {len(self.xywh), len(self.labels), len(self.crowd), len(self.area), len(masks)}
        if len(sizes) > 1:
            raise ValueError(f"truth of image {self.image_id}: lengths {sorted(sizes)}, expected equal ones")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Detections:
    """A head's detections in one image, D instances, in any order."""

    boxes: npt.NDArray[np.float32]
    """(D, 4) x1 y1 x2 y2"""
    scores: npt.NDArray[np.float32]
    """(D,)"""
    labels: npt.NDArray[np.int64]
    """(D,), 0-based."""
    counts: tuple[bytes, ...] | None
    """D masks, pycocotools' compressed run lengths; None of a head without masks."""

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: Sequence[int]) -> Detections:
        """Those of these numbers, in their order."""
        kept = list(chosen)
        return Detections(
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            counts=None if self.counts is None else tuple(self.counts[number] for number in kept),
        )


def joined(parts: Sequence[Detections]) -> Detections:
    """The detections of several views of an image as one set. There is at least one part."""
    masks = [part.counts for part in parts if part.counts is not None]
    return Detections(
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        counts=tuple(counts for each in masks for counts in each) if len(masks) == len(parts) else None,
    )


def mask_counts(masks_DHW: npt.NDArray[np.uint8]) -> tuple[bytes, ...]:
    """The run lengths of bitmaps, uint8 (D, H, W) of 0 and 1.

    >>> mask_counts(np.array([[[0, 1], [0, 1]]], np.uint8))
    (b'22',)
    """
    if not len(masks_DHW):
        return ()
    return tuple(each["counts"] for each in coco_mask.encode(np.asfortranarray(masks_DHW.transpose(1, 2, 0))))


def mask_bitmap(counts: bytes, original_hw: Hw) -> npt.NDArray[np.uint8]:
    """The inverse of `mask_counts` for one mask: uint8 (H, W) of 0 and 1."""
    bitmap: npt.NDArray[np.uint8] = coco_mask.decode({"size": list(original_hw), "counts": counts})
    return bitmap


def box_entries(image_id: int, found: Detections, category_ids: Sequence[int]) -> Iterator[Entry]:
    """The detections as entries of a bbox results file, `category_ids[label]` their categories."""
    for (x1, y1, x2, y2), entry in zip(
        found.boxes.tolist(), _entries(image_id, found, category_ids), strict=True
    ):
        yield {**entry, "bbox": [x1, y1, x2 - x1, y2 - y1]}


def mask_entries(
    image_id: int, original_hw: Hw, found: Detections, category_ids: Sequence[int]
) -> Iterator[Entry]:
    """The detections as entries of a segm results file.

    They hold no bbox: if they did, pycocotools would take an instance's area, and so whether it is small,
    from the box. None of a head without masks.
    """
    if found.counts is None:
        return
    for counts, entry in zip(found.counts, _entries(image_id, found, category_ids), strict=True):
        yield {**entry, "segmentation": {"size": list(original_hw), "counts": counts.decode("ascii")}}


def _entries(image_id: int, found: Detections, category_ids: Sequence[int]) -> Iterator[Entry]:
    for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True):
        yield {"image_id": image_id, "category_id": category_ids[label], "score": score}


def truth_as_coco(
    truths: Iterable[Truth], category_ids: Sequence[int], names: Sequence[str]
) -> dict[str, Any]:
    """The truth as the content of an instances file, annotations numbered from 1.

    Not from 0: pycocotools takes a detection matched with annotation 0 for one without a match.
    """
    images: list[Entry] = []
    annotations: list[Entry] = []
    for truth in truths:
        height, width = truth.original_hw
        images.append({"id": truth.image_id, "height": height, "width": width})
        for number, label in enumerate(truth.labels.tolist()):
            entry = {
                "id": len(annotations) + 1,
                "image_id": truth.image_id,
                "category_id": category_ids[label],
                "bbox": truth.xywh[number].tolist(),
                "area": float(truth.area[number]),
                "iscrowd": int(truth.crowd[number]),
            }
            if truth.counts is not None:
                counts = truth.counts[number].decode("ascii")
                entry["segmentation"] = {"size": [height, width], "counts": counts}
            annotations.append(entry)
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_results(path: Path, entries: Sequence[Entry]) -> None:
    """Writes a results file: what pycocotools' `loadRes` and the COCO server take."""
    path.write_text(json.dumps(entries, separators=(",", ":")) + "\n")
