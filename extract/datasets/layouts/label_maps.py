"""Segmentation data: pairs of an image and a label map, whatever the layout they were listed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.datasets.layouts.dataset_split import DatasetSplit
from extract.decoding.image_media import Images
from extract.sources.byte_sources import BAD_TARGET, MAX_SOURCE, ByteSource, SourceError, image_size, retried
from extract.sources.listing import MissingFile, missing_reasons
from extract.sources.record import Record
from extract.sources.stamps import stamps_digest
from extract.views.view import Hw, View
from stores.format.plan import DenseTarget, RaggedTarget, Target

Labels = npt.NDArray[np.uint8]
"""(H, W), the label of each pixel; 255 = ignore."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of one record."""

    key: str
    image: ByteSource
    annotation: ByteSource


class LabelMaps(DatasetSplit):
    """One split of a segmentation data set; a `Dataset`."""

    task = "segmentation"
    media = Images()
    _digests: bytes | None

    def __init__(
        self,
        name: str,
        split: str,
        is_training: bool,
        class_names: tuple[str, ...],
        pairs: Sequence[Pair],
        subset: str | None,
        decode: Callable[[bytes, Hw], Labels],
        *,
        has_truth: bool = True,
    ) -> None:
        """Args:
        decode: the label map in an annotation file, for an image of that height and width; raises
            SourceError.
        has_truth: False of a test split whose label maps are not published.
        """
        super().__init__(name, split, is_training, class_names)
        self.has_truth, self._decode, self._digests = has_truth, decode, None
        self._pairs = tuple(sorted(pairs, key=lambda pair: pair.key))
        self.unusable_records = missing_reasons(
            {pair.key: (pair.image, pair.annotation) for pair in self._pairs}
        )
        self.list_records(self._pairs, _record, (pair.key for pair in self._pairs), subset)

    @cached_property
    def source_state(self) -> str | None:
        """A digest of all files as they stand; None where one is gone."""
        pairs = ((pair.key, source) for pair in self._pairs for source in (pair.image, pair.annotation))
        try:
            return f"{stamps_digest(pairs)} {MAX_SOURCE.bytes}"
        except OSError:
            return None

    @property
    def survey_record(self) -> tuple[bytes, dict[str, Any]] | None:
        return None if self._digests is None else (self._digests, {})

    def use_survey(self, digests: bytes, findings: Mapping[str, Any]) -> None:
        self._digests = digests

    def annotation_sha256(self, index: int) -> str | None:
        """64 hex digits of `read_annotation` as it was surveyed; None before."""
        return None if self._digests is None else self._digests[32 * index : 32 * index + 32].hex()

    def read_source(self, index: int) -> bytes:
        return self._pairs[index].image.read()

    def read_annotation(self, index: int) -> bytes:
        """Empty where there is no label map, or one that is too long to be read."""
        source = self._pairs[index].annotation
        is_read = not isinstance(source, MissingFile) and source.size <= MAX_SOURCE.bytes
        return source.read() if is_read else b""

    def parse_annotation(self, index: int, annotation: bytes) -> Labels:
        if not self.has_truth:
            return np.zeros((0, 0), np.uint8)
        source = self._pairs[index].annotation
        if isinstance(source, MissingFile):
            raise SourceError(BAD_TARGET, source.reason)
        try:
            MAX_SOURCE.check(source.size)
        except SourceError as error:
            raise SourceError(BAD_TARGET, f"annotation: {error.reason}") from None
        return self._decode(annotation, self.records[index].original_hw)

    def target_specs(
        self, with_original: bool, params: Sequence[npt.NDArray[np.float64]]
    ) -> tuple[Target, ...]:
        if not self.has_truth:
            return ()
        in_view = DenseTarget("labels", "uint8", ("y", "x"))
        if not with_original:
            return (in_view,)
        cap_bytes = max(record.original_hw[0] * record.original_hw[1] for record in self.records)
        return in_view, RaggedTarget("original_labels", "uint8", ("original_y", "original_x"), cap_bytes)

    def targets(self, truth: Labels, view: View) -> Mapping[str, Labels]:
        return {"labels": view.apply_labels(truth), "original_labels": truth} if self.has_truth else {}


def _record(pair: Pair) -> Record:
    return Record(pair.key, pair.image.size, retried(lambda: _original_hw(pair), f"header of {pair.key}"))


def _original_hw(pair: Pair) -> Hw:
    for source in (pair.image, pair.annotation):
        try:
            return image_size(source)
        except SourceError:  # the record is skipped, with this reason, when it is decoded
            continue
    return 1, 1
