"""Data of persons: one record a person, cropped around an annotated box or one of a file of boxes.

Keys are `<image>_<annotation id>`, of a file of boxes `<image>_box<place in the file>`. Left out as in mmpose
(open-mmlab/mmpose@759b39c datasets/datasets/base/base_coco_style_dataset.py): crowds, persons without a
visible keypoint, boxes that do not touch their image. Records of one image share its source, which is decoded
once for all of them.

Targets of every row, in view pixels unless they say otherwise; K keypoints:
    keypoints float32 (K, 3)   x, y from the centre of the first pixel, and visibility 0, 1 or 2; of a mirror
                               image left and right have changed places
    box float32 (4,)           x, y, width, height in pixels of the source
    box_score float32 ()       1 of annotated boxes
    area float64 ()            as annotated, square pixels of the source
    image_id, annotation_id int64 ()   the latter -1 of boxes of a file
Test rows also hold all P annotated persons of their image, crowds among them, in pixels of the source:
    original_keypoints float64 (P, K, 3)   original_xywh float64 (P, 4)     original_area float64 (P,)
    original_crowd uint8 (P,)              original_ids int64 (P,)
With a file of boxes an image whose persons it does not show gets one record, `<image>_missed`, of the whole
image with the score 0: it predicts nothing, and its persons count as missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.datasets.layouts.coco_files import ImageEntry
from extract.datasets.layouts.dataset_split import DatasetSplit
from extract.datasets.persons.box_file import BoxFile
from extract.datasets.persons.person_annotations import (
    NO_ANNOTATION,
    Person,
    PersonTruth,
    UnusablePerson,
    clipped,
    person_of,
    truth_bytes,
    truth_of_bytes,
)
from extract.decoding.image_media import Persons
from extract.sources.listing import MissingFile
from extract.sources.record import DatasetLayoutError
from extract.sources.unusable import UnusableCounter
from extract.views.persons.affine_view import AffineView
from extract.views.persons.person_box import PersonRecord
from extract.views.view import View
from stores.format.plan import DenseTarget, RaggedTarget, Target
from stores.keypoints import KeypointRule
from stores.subsets import subset_keys

_FLOAT, _INT = 8, 8


@dataclass(frozen=True, slots=True)
class _Listed:
    """One record, with what its annotation says and the image that it is in."""

    key: str
    truth: PersonTruth
    entry: ImageEntry


class PersonData(DatasetSplit):
    """One split; a `Dataset` whose classes are the keypoints."""

    task = "pose"
    media = Persons()
    records: tuple[PersonRecord, ...]

    def __init__(
        self,
        name: str,
        split: str,
        is_training: bool,
        rule: KeypointRule,
        categories: Sequence[int],
        images: Sequence[ImageEntry],
        subset: str | None,
        boxes: BoxFile | None = None,
        *,
        strangers: Mapping[str, int] | None = None,
    ) -> None:
        """Args:
        categories: ids of those whose instances are persons.
        images: with their annotations.
        strangers: annotations of no listed image, by what is wrong with them.
        boxes: that test rows are of; None: the annotated ones.

        Raises DatasetLayoutError where no person is left, ValueError for boxes of a training split.
        """
        super().__init__(name, split, is_training, rule.names)
        if boxes is not None and is_training:
            raise ValueError(f"--boxes: {split} is a training split, whose boxes are the annotated ones")
        self.keypoint_rule, self.category_ids, self.boxes = rule, tuple(categories), boxes
        self.task_facts = {**rule.to_json(), "categories": list(categories)}
        counter = UnusableCounter()
        counter.add_strangers(strangers or {})
        listed = [record for entry in images for record in self._of_image(entry, counter)]
        self.unusable_annotations = counter.result()
        """Annotations that are left out; None where all are used."""
        self._listed = sorted(listed, key=lambda record: record.key)
        if not listed:
            raise DatasetLayoutError(
                f"{name} {split}: no person with a visible keypoint in {len(images)} images"
                + (f", or none of boxes {boxes.name} is of them" if boxes else "")
            )
        keys = [record.key for record in self._listed]
        if len(set(keys)) < len(keys):
            twice, _ = Counter(keys).most_common(1)[0]
            raise DatasetLayoutError(f"{name} {split}: {twice!r} is listed twice")
        self.subset = subset_keys(keys, subset) if subset else None
        self.records = tuple(map(self._record, self._listed))
        self.unusable_records = {
            each.key: each.entry.image.reason
            for each in self._listed
            if isinstance(each.entry.image, MissingFile)
        }

    def _of_image(self, entry: ImageEntry, counter: UnusableCounter) -> Iterator[_Listed]:
        persons = self._persons(entry, counter)
        if self.boxes is None:
            kept = [(person, clipped(person.xywh, entry.hw)) for person in persons if person.counts]
            for person, box in kept:
                if box is None:
                    continue
                truth = PersonTruth(
                    image_id=entry.image_id,
                    annotation_id=person.number,
                    xywh=box,
                    score=1.0,
                    keypoints=person.keypoints,
                    area=person.area,
                    persons=(person,) if self.is_training else persons,
                )
                yield _Listed(f"{entry.key}_{person.number}", truth, entry)
            return
        shown = [(f"box{each.number}", each.xywh, each.score) for each in self._boxes_of(entry)]
        if not shown and any(person.counts for person in persons):
            shown = [("missed", (0.0, 0.0, float(entry.hw[1]), float(entry.hw[0])), 0.0)]
        for ending, xywh, score in shown:
            truth = PersonTruth(
                image_id=entry.image_id,
                annotation_id=NO_ANNOTATION,
                xywh=xywh,
                score=score,
                keypoints=np.zeros((self.num_classes, 3)),
                area=0.0,
                persons=persons,
            )
            yield _Listed(f"{entry.key}_{ending}", truth, entry)

    def _boxes_of(self, entry: ImageEntry) -> Sequence[Any]:
        assert self.boxes is not None
        return self.boxes.of(entry.image_id, entry.key.rpartition("/")[2])

    def _persons(self, entry: ImageEntry, counter: UnusableCounter) -> tuple[Person, ...]:
        persons: list[Person] = []
        problems: list[tuple[str, str]] = []
        for annotation in entry.annotations:
            try:
                persons.append(person_of(annotation, self.num_classes, self.category_ids))
            except UnusablePerson as error:
                problems.append((str(annotation.get("id"))[:40], str(error)))
        counter.add(len(persons), problems, entry.key)
        return tuple(sorted(persons, key=lambda person: person.number))

    def _record(self, listed: _Listed) -> PersonRecord:
        known = listed.truth.annotation_id != NO_ANNOTATION
        return PersonRecord(
            key=listed.key,
            source_bytes=listed.entry.image.size,
            original_hw=listed.entry.hw,
            source=listed.entry.key,
            box=listed.truth.xywh,
            keypoints=listed.truth.keypoints.astype(np.float32) if known and self.is_training else None,
            upper_body=self.keypoint_rule.upper_body,
        )

    def read_source(self, index: int) -> bytes:
        return self._listed[index].entry.image.read()

    def read_annotation(self, index: int) -> bytes:
        return truth_bytes(self._listed[index].truth, self._listed[index].entry.hw)

    def parse_annotation(self, index: int, annotation: bytes) -> PersonTruth:
        return truth_of_bytes(annotation)

    @cached_property
    def _most_persons(self) -> int:
        return max(1, *(len(each.truth.persons) for each in self._listed), 1)

    def target_specs(
        self, with_original: bool, params: Sequence[npt.NDArray[np.float64]]
    ) -> tuple[Target, ...]:
        of_row = (
            DenseTarget("keypoints", "float32", (self.num_classes, 3)),
            DenseTarget("box", "float32", (4,)),
            DenseTarget("box_score", "float32", ()),
            DenseTarget("area", "float64", ()),
            DenseTarget("image_id", "int64", ()),
            DenseTarget("annotation_id", "int64", ()),
        )
        if not with_original:
            return of_row
        most, points = self._most_persons, 3 * self.num_classes
        return (
            *of_row,
            RaggedTarget("original_keypoints", "float64", (-1, self.num_classes, 3), most * points * _FLOAT),
            RaggedTarget("original_xywh", "float64", (-1, 4), most * 4 * _FLOAT),
            RaggedTarget("original_area", "float64", (-1,), most * _FLOAT),
            RaggedTarget("original_crowd", "uint8", (-1,), most),
            RaggedTarget("original_ids", "int64", (-1,), most * _INT),
        )

    def targets(self, truth: PersonTruth, view: View) -> Mapping[str, npt.NDArray[Any]]:
        if not isinstance(view, AffineView):
            raise TypeError("a person has views of the class AffineView only")
        return {
            "keypoints": view_keypoints(truth.keypoints, view, self.keypoint_rule),
            "box": np.array(truth.xywh, np.float32),
            "box_score": np.array(truth.score, np.float32),
            "area": np.array(truth.area, np.float64),
            "image_id": np.array(truth.image_id, np.int64),
            "annotation_id": np.array(truth.annotation_id, np.int64),
            "original_keypoints": _stacked(truth, lambda person: person.keypoints, (self.num_classes, 3)),
            "original_xywh": _stacked(truth, lambda person: person.xywh, (4,)),
            "original_area": _stacked(truth, lambda person: person.area, ()),
            "original_crowd": _stacked(truth, lambda person: person.crowd, ()).astype(np.uint8),
            "original_ids": _stacked(truth, lambda person: person.number, (), np.int64),
        }


def view_keypoints(
    keypoints_K3: npt.NDArray[np.float64], view: AffineView, rule: KeypointRule
) -> npt.NDArray[np.float32]:
    """Keypoints of the source, float64 (K, 3), in a view, float32 (K, 3); of one that is not annotated all
    three are 0."""
    moved = np.concatenate([view.apply_points(keypoints_K3[:, :2]), keypoints_K3[:, 2:]], axis=1)
    moved[keypoints_K3[:, 2] <= 0] = 0
    return (moved[list(rule.mirrored)] if view.flip else moved).astype(np.float32)


def _stacked(
    truth: PersonTruth, of: Callable[[Person], Any], shape: tuple[int, ...], dtype: Any = np.float64
) -> npt.NDArray[Any]:
    return np.array([of(person) for person in truth.persons], dtype).reshape(-1, *shape)
