"""What a data set and its media offer to an extraction.

A data set lists records and reads their files; its media turn the bytes of a source into the pixels of views
(`extract.decoding` holds two: images and videos).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from extract.sources.byte_sources import retried
from extract.sources.record import READ_THREADS, Record
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
    `extract.sources.unusable.UnusableAnnotations` or None; `boxes_only`, True for a detection without masks.
    """

    @property
    def name(self) -> str:
        """Its module in extract.datasets."""

    @property
    def task(self) -> str:
        """What its heads solve: segmentation, detection or video."""

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
        """See `digest_of`; reads every annotation file once."""

    @property
    def media(self) -> Media:
        """How its sources become pixels."""

    def read_source(self, index: int) -> bytes:
        """The image or video file of a record. Raises OSError."""

    def read_annotation(self, index: int) -> bytes:
        """The annotation of a record, as it stands in its file. Raises OSError."""

    def parse_annotation(self, index: int, annotation: bytes) -> Any:
        """The truth in a record's annotation, in the source's own pixels; of a segmentation the label map,
        uint8 (H, W) in 0..num_classes - 1, 255 = ignore. Raises SourceError where it cannot be used."""

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


def digest_of(sha256_by_key: Iterable[tuple[str, str]]) -> str:
    """One digest of all annotations: sha256 over the sorted lines `key sha256`."""
    lines = sorted(f"{key} {digest}\n" for key, digest in sha256_by_key)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def annotation_digest(dataset: Dataset, keys: Sequence[str]) -> str:
    """`digest_of` the annotations of a data set, read by a few threads."""

    def one(index: int) -> tuple[str, str]:
        data = retried(lambda: dataset.read_annotation(index), f"annotation of {keys[index]}")
        return keys[index], hashlib.sha256(data).hexdigest()

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return digest_of(pool.map(one, range(len(keys))))
