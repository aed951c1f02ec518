"""One pass over the annotations of COCO's records: what targets can hold at most, and what cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from extract.datasets.layouts.coco_annotations import has_mask, instances_of
from extract.datasets.layouts.coco_files import ImageEntry
from extract.sources.listing import MissingFile
from extract.sources.unusable import UnusableAnnotations, UnusableCounter
from extract.views.instance_targets import Survey
from extract.views.instances import Instances

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoSurvey:
    """What the annotations of a split say before an image is decoded."""

    sizes: Survey
    annotations: UnusableAnnotations | None
    """Those that cannot be used; None where all can."""
    records: Mapping[str, str]
    """Why records cannot be used, by key: no image, or no annotation that can be used."""


def survey_split(
    split: str,
    entries: Sequence[ImageEntry],
    strangers: Mapping[str, int],
    label_of: Mapping[int, int],
    boxes_only: bool,
) -> CocoSurvey:
    """Reads the annotations of every record, and warns of those that cannot be used in one line.

    Args:
        split: named in the line.
        entries: of the records.
        strangers: annotations of no image by what is wrong with them; they count as unusable.
        label_of: 0-based label by category id.
        boxes_only: see `has_boxes_only`.
    """
    counter, reasons = UnusableCounter(), dict[str, str]()

    def truths() -> Iterator[Instances]:
        for entry in entries:
            truth = instances_of(
                entry.image_id, entry.hw, entry.listed, entry.annotations, label_of, boxes_only=boxes_only
            )
            counter.add(len(truth), truth.skipped, f"image {entry.key}")
            if isinstance(entry.image, MissingFile):
                reasons[entry.key] = entry.image.reason
            elif problem := none_usable(truth):
                reasons[entry.key] = problem
            yield truth

    sizes = Survey.of(truths())
    counter.add_strangers(strangers)
    unusable = counter.result()
    if unusable is not None:
        logger.warning("%s: %s", split, unusable.line())
    if boxes_only:
        logger.warning(
            "%s: annotations have boxes and no masks: the store and its heads are of boxes only", split
        )
    return CocoSurvey(sizes=sizes, annotations=unusable, records=reasons)


def has_boxes_only(entries: Sequence[ImageEntry]) -> bool:
    """Whether annotations exist, and none of them has a mask."""
    annotations = [annotation for entry in entries for annotation in entry.annotations]
    return bool(annotations) and not any(map(has_mask, annotations))


def none_usable(truth: Instances) -> str | None:
    """Why an image with annotations is no record, as nothing says it is background; None where it is one."""
    if len(truth) or not truth.skipped:
        return None
    number, reason = truth.skipped[0]
    return f"none of its {len(truth.skipped)} annotations can be used: annotation {number}: {reason}"
