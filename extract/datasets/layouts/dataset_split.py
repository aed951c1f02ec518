"""What splits of all data sets share: names, classes, part of the records, headers read by threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from extract.datasets.layouts.annotation_digest import annotation_digest
from extract.sources.record import READ_THREADS, Record
from stores.subsets import subset_keys

Item = TypeVar("Item")


class DatasetSplit:
    """Base of data sets whose records are images or videos with one annotation each; see
    `extract.datasets.contract.Dataset`."""

    task: ClassVar[str]
    media: Any
    description: Mapping[str, Any] | None = None
    """Of own data, see `extract.datasets.own.description`."""
    task_facts: Mapping[str, Any] | None = None
    """What truth without classes means, see `extract.datasets.contract.Dataset`."""
    licence: str | None = None
    """One line on the licence of the data."""
    has_truth: bool = True
    """False of a test split whose annotations are not published."""
    subset: frozenset[str] | None = None
    """Keys of the records to fill; None: all."""
    records: tuple[Record, ...]

    def __init__(self, name: str, split: str, is_training: bool, class_names: Sequence[str]) -> None:
        self.name, self.split, self.is_training = name, split, is_training
        self.class_names, self.num_classes = tuple(class_names), len(class_names)

    def list_records(
        self,
        items: Sequence[Item],
        record_of: Callable[[Item], Record],
        keys: Iterable[str],
        subset: str | None,
        labels: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """Sets `subset` and `records`; reads the headers of all files, a few at a time.

        Args:
            items: files of each record, in the order of keys.
            record_of: an item's record.
            subset, labels: as of `stores.subsets.subset_keys`.

        Raises ValueError for an unknown subset, OSError.
        """
        self.subset = subset_keys(keys, subset, labels=labels) if subset else None
        with ThreadPoolExecutor(READ_THREADS) as pool:
            self.records = tuple(pool.map(record_of, items))

    @cached_property
    def annotation_digest(self) -> str:
        return annotation_digest(self, [record.key for record in self.records])

    def read_annotation(self, index: int) -> bytes:
        """The annotation of a record, as it stands in its file. Raises OSError."""
        raise NotImplementedError

    def parse_annotation(self, index: int, annotation: bytes) -> Any:
        """What an annotation says. Raises SourceError."""
        raise NotImplementedError

    def read_truth(self, index: int) -> Any:
        return self.parse_annotation(index, self.read_annotation(index))
