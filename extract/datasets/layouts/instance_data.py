"""Detection data: images with COCO's annotations, whatever file and folders they were listed from."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.datasets.coco_json.annotations import annotation_bytes, parse_annotations
from extract.datasets.layouts.coco_files import CocoFile, ImageEntry
from extract.datasets.layouts.coco_survey import (
    CocoFindings,
    CocoSurvey,
    has_boxes_only,
    none_usable,
    survey_split,
)
from extract.datasets.layouts.dataset_split import DatasetSplit
from extract.datasets.layouts.stuff_maps import StuffMaps
from extract.decoding.image_media import Images
from extract.sources.byte_sources import BAD_TARGET, SourceError
from extract.sources.listing import MissingFile
from extract.sources.record import DatasetLayoutError, Record
from extract.sources.unusable import UnusableAnnotations
from extract.views import box_targets, instance_targets
from extract.views.instances import Instances
from extract.views.view import View
from stores.format.canonical_json import canonical_json, sha256_hex
from stores.format.plan import DenseTarget, Target
from stores.subsets import subset_keys

logger = logging.getLogger(__name__)

MIN_SIDE_PX = 32
"""Of images to train on."""


class InstanceData(DatasetSplit):
    """One split of a detection data set; a `Dataset`."""

    task = "detection"
    media = Images()

    def __init__(
        self,
        name: str,
        split: str,
        is_training: bool,
        categories: Mapping[int, str],
        listed_file: CocoFile,
        subset: str | None,
        stuff: StuffMaps | None = None,
        *,
        has_truth: bool = True,
    ) -> None:
        """Args:
        categories: names by category id, in the order of labels.
        stuff: maps of the images to train on, for the target `stuff`; None for none.
        has_truth: False of a test split whose annotations are not published.

        Raises DatasetLayoutError where no image is left, or one is listed twice.
        """
        super().__init__(name, split, is_training, tuple(categories.values()))
        self._label_of = {category: label for label, category in enumerate(categories)}
        entries = listed_file.entries
        self.boxes_only, self.has_truth = has_boxes_only(entries), has_truth
        self._strangers, self._stuff, self._path = listed_file.strangers, stuff, listed_file.path
        self.stuff_maps = None if stuff is None else stuff.kind
        kept = _trainable(entries) if self.is_training else entries
        self._entries = tuple(sorted(kept, key=lambda entry: entry.key))
        keys = [entry.key for entry in self._entries]
        if len(set(keys)) != len(keys) or not keys:
            repeated = next((a for a, b in pairwise(keys) if a == b), None)
            raise DatasetLayoutError(
                f"{split}: {len(keys)} images"
                + (f", {repeated!r} listed twice" if repeated else " to train on")
            )
        ids = [entry.image_id for entry in self._entries]
        if len({*ids}) < len(ids):  # one would get the other's annotations, and COCO's metrics would be wrong
            raise DatasetLayoutError(
                f"{split}: {Counter(ids).most_common(1)[0][0]} is the id of several images"
            )
        self.subset = subset_keys(keys, subset, self._listed) if subset else None
        self.records = tuple(Record(entry.key, entry.image.size, entry.hw) for entry in self._entries)

    def _listed(self) -> dict[str, tuple[int, int]]:
        return {entry.key: entry.listed for entry in self._entries}

    def annotation_sha256(self, index: int) -> str | None:
        """64 hex digits of `read_annotation`, known from the survey; None where a stuff map is part of it."""
        if self._stuff is not None:
            return None
        return self._findings.digests[32 * index : 32 * index + 32].hex()

    def read_source(self, index: int) -> bytes:
        return self._entries[index].image.read()

    def read_annotation(self, index: int) -> bytes:
        """The canonical JSON of an image's annotations, see `annotation_bytes`, and its stuff map if any."""
        entry = self._entries[index]
        annotation = annotation_bytes(entry.image_id, entry.hw, entry.listed, entry.annotations)
        if self._stuff is None or isinstance(self._stuff.source(entry.key), MissingFile):
            return annotation
        return self._stuff.joined(entry.key, annotation)

    def parse_annotation(self, index: int, annotation: bytes) -> Instances:
        """Raises SourceError also where none of its annotations can be used: that is not background."""
        entry, stuff = self._entries[index], None
        if self._stuff is not None:
            if isinstance(source := self._stuff.source(entry.key), MissingFile):
                raise SourceError(BAD_TARGET, source.reason)
            annotation, stuff = self._stuff.split(annotation, entry.hw)
        truth = parse_annotations(annotation, self._label_of, boxes_only=self.boxes_only)
        if problem := none_usable(truth):
            raise SourceError(BAD_TARGET, problem)
        return truth if stuff is None else replace(truth, stuff=stuff)

    def target_specs(
        self, with_original: bool, params: Sequence[npt.NDArray[np.float64]]
    ) -> tuple[Target, ...]:
        if not self.has_truth:
            return (DenseTarget("image_id", "int64", ()),)
        found = (
            box_targets.target_specs(self._survey.sizes, with_original)
            if self.boxes_only
            else instance_targets.target_specs(self._survey.sizes, with_original, params)
        )
        return found if self._stuff is None else (*found, DenseTarget("stuff", "uint8", ("y", "x")))

    def targets(self, truth: Instances, view: View) -> Mapping[str, npt.NDArray[Any]]:
        if not self.has_truth:
            return {"image_id": np.array(truth.image_id, np.int64)}
        found = (box_targets if self.boxes_only else instance_targets).targets(truth, view)
        return found if truth.stuff is None else {**found, "stuff": view.apply_labels(truth.stuff)}

    @property
    def unusable_annotations(self) -> UnusableAnnotations | None:
        """Of all records; None where every annotation can be used."""
        return self._findings.annotations

    @property
    def unusable_records(self) -> Mapping[str, str]:
        """Why records cannot be used, by key, as far as the annotations and the list of files say it."""
        stuff = self._stuff
        if stuff is None:
            return self._findings.records
        missing = {
            entry.key: source.reason
            for entry in self._entries
            if isinstance(source := stuff.source(entry.key), MissingFile)
        }
        return {**missing, **self._findings.records}

    @cached_property
    def source_state(self) -> str | None:
        """A digest of the annotation file, of how it is read and of which images are there; None where
        annotations are in several files."""
        if self._path is None or self._stuff is not None:
            return None
        missing = {e.key: e.image.reason for e in self._entries if isinstance(e.image, MissingFile)}
        with self._path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        how = [self.split, self.is_training, self.boxes_only, list(self._label_of.items()), missing]
        return sha256_hex(canonical_json([content, str(self._path), how, dict(self._strangers)]))

    @property
    def survey_record(self) -> tuple[bytes, dict[str, Any]]:
        return self._findings.digests, self._findings.to_json()

    def use_survey(self, digests: bytes, findings: Mapping[str, Any]) -> None:
        """Raises KeyError and TypeError for findings that are none."""
        self._findings = CocoFindings.from_json(findings, digests)

    @cached_property
    def _findings(self) -> CocoFindings:
        return self._survey

    @cached_property
    def _survey(self) -> CocoSurvey:
        _ = self.source_state  # as it is before annotations are read
        return survey_split(self.split, self._entries, self._strangers, self._label_of, self.boxes_only)


def _trainable(entries: Sequence[ImageEntry]) -> list[ImageEntry]:
    kept = [entry for entry in entries if min(entry.hw) >= MIN_SIDE_PX and len(entry.annotations)]
    if len(kept) < len(entries):
        message = "%d of %d images are not trained on: without annotations, or with a side below %d px"
        logger.info(message, len(entries) - len(kept), len(entries), MIN_SIDE_PX)
    return kept
