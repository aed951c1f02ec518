"""Persons of one image as an annotation file has them, checked; and the bytes that digests are of.

An annotation that cannot be used is left out with its id and reason, and the rest of its image stays: a
category outside the list; a box that is not four finite numbers; keypoints that are not three finite numbers
each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.sources.byte_sources import BAD_TARGET, SourceError
from extract.views.persons.person_box import Xywh
from extract.views.view import Hw
from stores.format.canonical_json import canonical_json

Floats = npt.NDArray[np.float64]
NO_ANNOTATION = -1
"""Id of a person that a file of boxes shows."""


class UnusablePerson(ValueError):
    """Why one annotation is left out."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Person:
    """One annotated person."""

    number: int
    """Its annotation id."""
    xywh: Xywh
    """In pixels, as in the file."""
    keypoints: Floats
    """(K, 3): x, y in pixels, visibility 0 (not annotated), 1 (hidden) or 2."""
    area: float
    """Of its mask, square pixels: what OKS scales distances by."""
    crowd: bool

    @property
    def visible(self) -> int:
        """Annotated keypoints, COCO's num_keypoints."""
        return int((self.keypoints[:, 2] > 0).sum())

    @property
    def counts(self) -> bool:
        """Whether an evaluation wants it found."""
        return not self.crowd and self.visible > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.number,
            "bbox": list(self.xywh),
            "keypoints": self.keypoints.reshape(-1).tolist(),
            "area": self.area,
            "iscrowd": int(self.crowd),
        }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PersonTruth:
    """What a record's annotation says: box and keypoints, and of test splits all persons of the image."""

    image_id: int
    annotation_id: int
    """NO_ANNOTATION of a box that a file of boxes shows."""
    xywh: Xywh
    """The box that views are of."""
    score: float
    """Of the box; 1 of an annotated one."""
    keypoints: Floats
    """(K, 3); zeros where they are not known."""
    area: float
    persons: tuple[Person, ...]
    """All annotated persons of the image; of a training split this one."""


def person_of(entry: Mapping[str, Any], keypoints: int, categories: Collection[int]) -> Person:
    """An entry of a file's annotations. Raises UnusablePerson."""
    number = entry.get("id")
    if type(number) is not int:
        raise UnusablePerson("no whole number as its id")
    if entry.get("category_id") not in categories:
        raise UnusablePerson(f"category {str(entry.get('category_id'))[:20]} is none of the listed")
    box = _numbers(entry.get("bbox"), 4, "bbox")
    values = _numbers(entry.get("keypoints"), 3 * keypoints, "keypoints")
    area = entry.get("area", box[2] * box[3])
    if not isinstance(area, int | float) or not math.isfinite(area) or area < 0:
        raise UnusablePerson(f"area {str(area)[:20]}, expected square pixels")
    if min(values[2::3]) < 0:
        raise UnusablePerson("a keypoint with a visibility below 0")
    return Person(
        number=number,
        xywh=(box[0], box[1], box[2], box[3]),
        keypoints=np.array(values, np.float64).reshape(-1, 3),
        area=float(area),
        crowd=bool(entry.get("iscrowd", 0)),
    )


def _numbers(found: Any, count: int, what: str) -> list[float]:
    if not isinstance(found, list) or len(found) != count:
        shown = f"{len(found)} numbers" if isinstance(found, list) else str(found)[:20]
        raise UnusablePerson(f"{what} {shown}, expected {count} numbers")
    if not all(type(value) in (int, float) and math.isfinite(value) for value in found):
        raise UnusablePerson(f"{what} with something that is no finite number")
    return [float(value) for value in found]


def clipped(box: Xywh, hw: Hw) -> Xywh | None:
    """A box within the centres of its image's outer pixels, as mmpose's CocoDataset clips it; None where
    nothing of it is left.

    >>> clipped((-10.0, 5.0, 30.0, 30.0), (100, 100)), clipped((120.0, 5.0, 30.0, 30.0), (100, 100))
    ((0.0, 5.0, 20.0, 30.0), None)
    """
    x, y, width, height = box
    x1, x2 = (min(max(side, 0.0), hw[1] - 1.0) for side in (x, x + width))
    y1, y2 = (min(max(side, 0.0), hw[0] - 1.0) for side in (y, y + height))
    return (x1, y1, x2 - x1, y2 - y1) if x2 > x1 and y2 > y1 else None


def truth_bytes(truth: PersonTruth, hw: Hw) -> bytes:
    """The canonical JSON of a record's annotation: what annotation digests are of."""
    return canonical_json(
        {
            "image": {"id": truth.image_id, "height": hw[0], "width": hw[1]},
            "annotation_id": truth.annotation_id,
            "bbox": list(truth.xywh),
            "score": truth.score,
            "keypoints": truth.keypoints.reshape(-1).tolist(),
            "area": truth.area,
            "persons": [person.to_json() for person in truth.persons],
        }
    )


def truth_of_bytes(annotation: bytes) -> PersonTruth:
    """The inverse of `truth_bytes`. Raises SourceError where the bytes are none."""
    try:
        whole = json.loads(annotation)
        return PersonTruth(
            image_id=int(whole["image"]["id"]),
            annotation_id=int(whole["annotation_id"]),
            xywh=_box(whole["bbox"]),
            score=float(whole["score"]),
            keypoints=_points(whole["keypoints"]),
            area=float(whole["area"]),
            persons=tuple(map(_person, whole["persons"])),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(BAD_TARGET, f"annotation: {type(error).__name__}: {str(error)[:160]}") from None


def _person(fields: Mapping[str, Any]) -> Person:
    return Person(
        number=int(fields["id"]),
        xywh=_box(fields["bbox"]),
        keypoints=_points(fields["keypoints"]),
        area=float(fields["area"]),
        crowd=bool(fields["iscrowd"]),
    )


def _box(values: Sequence[float]) -> Xywh:
    x, y, width, height = map(float, values)
    return x, y, width, height


def _points(values: Iterable[float]) -> Floats:
    return np.array(list(values), np.float64).reshape(-1, 3)
