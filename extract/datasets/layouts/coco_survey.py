"""One pass over the annotations of COCO's records: what targets can hold at most, and what cannot be used."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from extract.datasets.coco_json.annotations import annotation_bytes, has_mask, instances_of
from extract.datasets.coco_json.byte_ranges import RangedAnnotations
from extract.datasets.coco_json.ordinary import (
    OrdinaryAnnotation,
    OrdinaryBlock,
    canonical_bytes,
    entries_of,
)
from extract.datasets.layouts.coco_files import ImageEntry
from extract.sources.listing import MissingFile
from extract.sources.unusable import UnusableAnnotations, UnusableCounter
from extract.views.instance_targets import ImageSurvey, Survey, rle_bytes
from extract.views.instances import Instances

logger = logging.getLogger(__name__)

_BLOCK = 128
"""Most images that are read and measured together: 0.5 MB of annotations, whose arrays stay in the cache."""
_BLOCK_BYTES = 16 << 20  # 16 MiB


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoFindings:
    """What the annotations of a split say, without the sizes of targets."""

    annotations: UnusableAnnotations | None
    """Those that cannot be used; None where all can."""
    records: Mapping[str, str]
    """Why records cannot be used, by key: no image, or no annotation that can be used."""
    digests: bytes
    """32 bytes a record: the sha256 of each record's `annotation_bytes`."""

    def to_json(self) -> dict[str, Any]:
        """Without the digests."""
        unusable = self.annotations
        return {
            "annotations": None if unusable is None else asdict(unusable),
            "records": dict(self.records),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], digests: bytes) -> CocoFindings:
        """The inverse of `to_json`. Raises KeyError and TypeError for other fields."""
        unusable = fields["annotations"]
        return cls(
            annotations=None if unusable is None else UnusableAnnotations(**unusable),
            records=dict(fields["records"]),
            digests=digests,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoSurvey(CocoFindings):
    """What the annotations of a split say before an image is decoded."""

    sizes: Survey


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
    counter, reasons, digests = UnusableCounter(), dict[str, str](), list[bytes]()

    def images() -> Iterator[ImageSurvey]:
        for block in _blocks(entries):
            for entry, (kept, skipped, digest) in zip(
                block, _read_block(block, label_of, boxes_only), strict=True
            ):
                digests.append(digest)
                usable = len(kept[2])
                counter.add(usable, skipped, f"image {entry.key}")
                if isinstance(entry.image, MissingFile):
                    reasons[entry.key] = entry.image.reason
                elif problem := _none_usable(usable, skipped):
                    reasons[entry.key] = problem
                yield kept

    sizes = Survey.of_images(images())
    counter.add_strangers(strangers)
    unusable = counter.result()
    if unusable is not None:
        logger.warning("%s: %s", split, unusable.line())
    if boxes_only:
        logger.warning(
            "%s: annotations have boxes and no masks: the store and its heads are of boxes only", split
        )
    return CocoSurvey(sizes=sizes, annotations=unusable, records=reasons, digests=b"".join(digests))


def _blocks(entries: Sequence[ImageEntry]) -> Iterator[Sequence[ImageEntry]]:
    """Runs of at most _BLOCK images and about _BLOCK_BYTES of annotations; one image is never parted."""
    first = size = 0
    for number, entry in enumerate(entries):
        own = entry.annotations.text_bytes if isinstance(entry.annotations, RangedAnnotations) else 0
        if number > first and (number - first == _BLOCK or size + own > _BLOCK_BYTES):
            yield entries[first:number]
            first, size = number, 0
        size += own
    if entries:
        yield entries[first:]


Skipped = Sequence[tuple[str, str]]
"""Id and reason of each annotation that cannot be used."""


def _read_block(
    entries: Sequence[ImageEntry], label_of: Mapping[int, int], boxes_only: bool
) -> list[tuple[ImageSurvey, Skipped, bytes]]:
    """Of each image what targets need, its unusable annotations and the sha256 of its `annotation_bytes`."""
    ordinary = OrdinaryBlock(label_of)
    in_block: dict[int, list[OrdinaryAnnotation]] = {}
    for number, entry in enumerate(entries):
        if isinstance(entry.annotations, RangedAnnotations) and not boxes_only:
            found = entries_of(entry.annotations.texts())
            if found is not None and ordinary.add(entry.hw, found):
                in_block[number] = found
    measured = dict(zip(in_block, ordinary.measured(), strict=True))
    results: list[tuple[ImageSurvey, Skipped, bytes]] = []
    for number, entry in enumerate(entries):
        image = entry.image_id, entry.hw, entry.listed
        if (sizes := measured.get(number)) is not None:
            kept: ImageSurvey = (entry.hw, sizes.extents, sizes.crowd, sizes.rle_bytes)
            skipped: Skipped = ()
            text = canonical_bytes(*image, in_block[number])
        else:
            each = list(entry.annotations)
            truth = instances_of(*image, each, label_of, boxes_only=boxes_only)
            kept = (truth.original_hw, truth.extents(), truth.crowd, rle_bytes(truth))
            text, skipped = annotation_bytes(*image, each), truth.skipped
        results.append((kept, skipped, hashlib.sha256(text).digest()))
    return results


def has_boxes_only(entries: Sequence[ImageEntry]) -> bool:
    """Whether annotations exist, and none of them has a mask."""
    some = any(len(entry.annotations) for entry in entries)
    return some and not any(has_mask(annotation) for entry in entries for annotation in entry.annotations)


def none_usable(truth: Instances) -> str | None:
    """Why an image with annotations is no record, as nothing says it is background; None where it is one."""
    return _none_usable(len(truth), truth.skipped)


def _none_usable(usable: int, skipped: Skipped) -> str | None:
    if usable or not skipped:
        return None
    number, reason = skipped[0]
    return f"none of its {len(skipped)} annotations can be used: annotation {number}: {reason}"
