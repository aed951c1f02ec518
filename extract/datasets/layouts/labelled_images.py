"""Classification data: photographs with one label each, whatever the layout they were listed from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.datasets.layouts.dataset_split import DatasetSplit
from extract.decoding.image_media import CroppedImages
from extract.sources.byte_sources import BAD_TARGET, ByteSource, SourceError, image_size, retried
from extract.sources.listing import IMAGE_ENDINGS, missing_reasons
from extract.sources.record import DatasetLayoutError, Record
from extract.sources.tar_samples import tar_samples
from extract.sources.text_lists import clean
from extract.views.view import View
from stores.format.plan import DenseTarget, Target

_LABEL_BYTES = 1 << 10
"""Longest `.cls` of a tar."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One record: its photograph, and its label as folder, list or file has it."""

    key: str
    image: ByteSource
    label: str


class LabelledImages(DatasetSplit):
    """One split of a classification data set; a `Dataset`."""

    task = "classification"
    media = CroppedImages()

    def __init__(
        self,
        name: str,
        split: str,
        is_training: bool,
        class_names: Sequence[str],
        images: Sequence[LabelledImage],
        number_of: Mapping[str, int],
        subset: str | None,
    ) -> None:
        """Args: number_of: the class, from 0, of every label that occurs in files."""
        super().__init__(name, split, is_training, class_names)
        self._number_of = dict(number_of)
        self._images = tuple(sorted(images, key=lambda image: image.key))
        self.unusable_records = missing_reasons({image.key: (image.image,) for image in self._images})
        keys = (image.key for image in self._images)
        self.list_records(self._images, _record, keys, subset, self._labels)

    def _labels(self) -> dict[str, int]:
        """The class of each record; of one whose label is no class -1."""
        return {image.key: self._number_of.get(image.label, -1) for image in self._images}

    def read_source(self, index: int) -> bytes:
        return self._images[index].image.read()

    def read_annotation(self, index: int) -> bytes:
        return self._images[index].label.encode()

    def parse_annotation(self, index: int, annotation: bytes) -> int:
        """The number of the class, from 0. Raises SourceError for a label that is no class."""
        label = annotation.decode(errors="replace")
        if label not in self._number_of:
            raise SourceError(BAD_TARGET, f"label {label[:80]!r} is none of the {self.num_classes} classes")
        return self._number_of[label]

    def target_specs(
        self, with_original: bool, params: Sequence[npt.NDArray[np.float64]]
    ) -> tuple[Target, ...]:
        label = DenseTarget("label", "int64", ())
        # Marks test rows; the same number, as no view changes the class of a photograph.
        return (label, DenseTarget("original_label", "int64", ())) if with_original else (label,)

    def targets(self, truth: int, view: View) -> Mapping[str, npt.NDArray[Any]]:
        label = np.array(truth, dtype=np.int64)
        return {"label": label, "original_label": label}


def _record(image: LabelledImage) -> Record:
    return Record(image.key, image.image.size, retried(lambda: _hw(image.image), f"header of {image.key}"))


def _hw(source: ByteSource) -> tuple[int, int]:
    try:
        return image_size(source)
    except SourceError:  # the record is skipped, with this reason, when it is decoded
        return 1, 1


def numbered_labels(names: Sequence[str], others: Sequence[Sequence[str]] = ()) -> dict[str, int]:
    """The class of every label that may stand in lists and tars: names, others of the same length such as
    folder names, and numbers from 0.

    >>> numbered_labels(["tench", "dog"], [["n01440764", "n02102040"]])["n02102040"]
    1
    """
    found = {str(number): number for number in range(len(names))}
    for labels in (names, *others):
        found.update({label: number for number, label in enumerate(labels)})
    return found


def images_of_tars(tars: Sequence[Path]) -> Iterator[LabelledImage]:
    """The samples of tars as webdataset lays them out: one photograph and a `.cls` each.

    Raises DatasetLayoutError for a sample that is none, and as `tar_samples`.
    """
    for key, members in tar_samples(tars).items():
        photographs = [member for ending, member in members.items() if ending in IMAGE_ENDINGS]
        label = members.get("cls") or members.get("txt")
        if label is None or len(photographs) != 1:
            raise DatasetLayoutError(
                f"{tars[0].parent}: sample {key!r} has {', '.join(sorted(members))}; looked for one "
                "photograph (.jpg) and its label (.cls) of each sample"
            )
        try:
            text = clean(label.read(_LABEL_BYTES).decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise DatasetLayoutError(f"{label.tar}: {label.name} is no UTF-8 text: {error}") from None
        yield LabelledImage(key, photographs[0], text)
