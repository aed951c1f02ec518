"""What a data set and its media offer to an extraction.

A data set lists records and reads their files; its media turn the bytes of a source into the pixels of views
(`extract.decoding` holds two: images and videos).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from extract.sources.record import Record
from extract.views.recipes import RecipeMaker
from extract.views.view import View
from stores.format.plan import Target

Pixels = npt.NDArray[np.uint8]


class Media(Protocol):
    """One kind of source, images or videos, and the views of it."""

    @property
    def view_params(self) -> tuple[str, ...]:
        """Names of the numbers that make a view, the columns of rows/params."""

    @property
    def decoder(self) -> Mapping[str, Any]:
        """What decodes and within which limits, for identities."""

    def view_from_params(self, params: Sequence[float] | npt.NDArray[Any]) -> View:
        """The view that `to_params` made them of. Raises ValueError where they are none."""

    def render(self, data: bytes, record: Record, views: Sequence[View]) -> list[Pixels]:
        """Views of a source, which is decoded once: uint8 RGB ([T,] padded H, W, 3), zero in the padding.

        Raises SourceError where the bytes are not what the record promised.
        """


class Dataset(Protocol):
    """One split of a data set; records are in the order of their keys.

    It may also have, for data with faults: `unusable_records`, reasons by key of records whose files or
    annotations say already that they will be skipped; `unusable_annotations`, an
    `extract.sources.unusable.UnusableAnnotations` or None; `boxes_only`, True for a detection without masks;
    `has_truth`, False for a test split whose annotations are not published.
    Where resumes need not read all annotations again, see `extract.planning.begun`: `source_state`, a digest
    of what annotations follow from, taken without parsing them, or None; `survey_record`, the sha256 of every
    annotation, 32 bytes each, and what else a survey found, as JSON, or None before it; `use_survey`, which
    takes both; and `annotation_sha256(index)`, 64 hex digits once they are known, with which each annotation
    is compared when its row comes.
    A task whose targets have no classes has `num_classes` 0 and no `class_names`; `task_facts`, numbers and
    words by name, say then what its truth means, such as the unit of depth. They are part of the identity of
    stores, and a head's setting of the same name takes its value from there.
    And `licence`, one line on the licence of the data for the store's README.md.
    """

    @property
    def name(self) -> str:
        """Its module in extract.datasets."""

    @property
    def task(self) -> str:
        """What its heads solve: a name of `pipelines.tasks`."""

    @property
    def split(self) -> str:
        """The data set's own name of the split."""

    @property
    def is_training(self) -> bool:
        """Whether the split is one to train on, and gets augmented views."""

    @property
    def num_classes(self) -> int: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def records(self) -> tuple[Record, ...]: ...

    @property
    def subset(self) -> frozenset[str] | None:
        """Keys of the records to fill; None: all."""

    @property
    def annotation_digest(self) -> str:
        """See `extract.datasets.layouts.annotation_digest`; reads every annotation file once."""

    @property
    def media(self) -> Media:
        """How its sources become pixels."""

    def read_source(self, index: int) -> bytes:
        """The image or video file of a record. Raises OSError."""

    def read_annotation(self, index: int) -> bytes:
        """The annotation of a record, as it stands in its file. Raises OSError."""

    def parse_annotation(self, index: int, annotation: bytes) -> Any:
        """The truth in a record's annotation, in the source's own pixels; of a segmentation the label map,
        uint8 (H, W) in 0..num_classes - 1, 255 = ignore; of depth uint16 (H, W), 0 = not measured.
        Raises SourceError where it cannot be used."""

    def read_truth(self, index: int) -> Any:
        """`parse_annotation` of `read_annotation`."""

    def target_specs(
        self, with_original: bool, params: Sequence[npt.NDArray[np.float64]]
    ) -> tuple[Target, ...]:
        """What a row holds beside features: targets in view space, and for test rows the untouched truth.

        `params` are the views of each record, float64 (V, P): what a ragged target's cap may follow from.
        """

    def targets(self, truth: Any, view: View) -> Mapping[str, npt.NDArray[Any]]:
        """Every target of `target_specs(True, ...)` by name, of one view of a record."""


class DatasetModule(Protocol):
    """What a module of extract.datasets offers; so does a description of own data."""

    @property
    def OFFICIAL_SPLITS(self) -> tuple[str, ...]: ...

    @property
    def TRAINING_SPLITS(self) -> tuple[str, ...]: ...

    @property
    def DEFAULT_FOLDER(self) -> str:
        """Name of its folder under data/."""

    @property
    def VIEW_RECIPES(self) -> Mapping[str, RecipeMaker]:
        """Makers of recipes from a crop size and a short side."""

    @property
    def TRAINING_VIEWS(self) -> tuple[str, ...]: ...

    @property
    def TEST_VIEWS(self) -> tuple[str, ...]: ...

    def open_dataset(self, data: str | Path, split: str, subset: str | None = None) -> Dataset:
        """One split. Raises DatasetLayoutError, ValueError and OSError."""

    def write_sample(self, folder: Path, records: int, generator: np.random.Generator) -> None:
        """Writes a tiny set in the data set's own layout."""
