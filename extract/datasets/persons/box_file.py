"""Files of person boxes, as detectors write them: COCO's results format, or one list for each image name.

A results file is a list of `{"image_id": ..., "bbox": [x, y, width, height], "score": ...}`, with
`category_id` where it holds boxes of several categories. The boxes that papers on COCO use are
COCO_val2017_detections_AP_H_56_person.json, 104,125 of them. `file_name` may stand in place of `image_id`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extract.datasets.coco_json.ids import whole_number
from extract.sources.record import DatasetLayoutError
from extract.views.persons.person_box import Xywh

_EXPECTED = (
    'a list of {"image_id": ..., "bbox": [x, y, width, height], "score": ...}, as detectors write it in '
    "COCO's results format"
)


@dataclass(frozen=True, slots=True)
class ScoredBox:
    """One box of a file."""

    number: int
    """Its place in the file, from 0."""
    xywh: Xywh
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxFile:
    """The boxes of a file by image."""

    name: str
    """Of the file, without folders."""
    sha256: str
    of_image: Mapping[int | str, tuple[ScoredBox, ...]] = field(repr=False)
    """By image id, or by file name without folders and ending."""

    def of(self, image_id: int | None, stem: str) -> tuple[ScoredBox, ...]:
        """Of one image, by its id or by the stem of its file name."""
        by_id = () if image_id is None else self.of_image.get(image_id, ())
        return (*by_id, *self.of_image.get(stem, ()))

    def identity(self) -> dict[str, Any]:
        """What identities say of it."""
        return {"file": self.name, "sha256": self.sha256, "count": sum(map(len, self.of_image.values()))}


def read_box_file(path: str | Path, categories: Collection[int] = (1,)) -> BoxFile:
    """The boxes of a file.

    Args: categories: ids of those that are persons; boxes of others, and of no area, are left out.

    Raises DatasetLayoutError, naming the entry, where it is no such file; OSError.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        entries = json.loads(data)
    except ValueError as error:
        raise DatasetLayoutError(f"--boxes {path} is no JSON: {error}; expected {_EXPECTED}") from None
    if not isinstance(entries, list):
        raise DatasetLayoutError(f"--boxes {path} holds a {type(entries).__name__}; expected {_EXPECTED}")
    found: defaultdict[int | str, list[ScoredBox]] = defaultdict(list)
    for number, entry in enumerate(entries):
        try:
            image, box = _entry(entry, number, categories)
        except (ValueError, KeyError, TypeError) as error:
            shown = str(entry)[:100]
            raise DatasetLayoutError(
                f"--boxes {path}: entry {number}, {shown}: {error}; expected {_EXPECTED}"
            ) from None
        if box is not None:
            found[image].append(box)
    if not found:
        raise DatasetLayoutError(f"--boxes {path} holds no box of a person; expected {_EXPECTED}")
    boxes = {image: tuple(of_image) for image, of_image in found.items()}
    return BoxFile(name=path.name, sha256=hashlib.sha256(data).hexdigest(), of_image=boxes)


def _entry(entry: Any, number: int, categories: Collection[int]) -> tuple[int | str, ScoredBox | None]:
    if not isinstance(entry, dict):
        raise ValueError("no object")
    image: int | str | None = whole_number(entry.get("image_id"))
    if image is None:
        if not isinstance(entry.get("file_name"), str):
            raise ValueError("neither a whole number as image_id nor a file_name")
        image = Path(entry["file_name"]).stem
    x, y, width, height = (float(value) for value in entry["bbox"])
    score = float(entry.get("score", 1.0))
    if not all(map(math.isfinite, (x, y, width, height, score))):
        raise ValueError("a number that is not finite")
    is_person = "category_id" not in entry or whole_number(entry["category_id"]) in categories
    if not is_person or width <= 0 or height <= 0:
        return image, None
    return image, ScoredBox(number, (x, y, width, height), score)
