"""The data set in the identity of a store: its records, annotations, classes and what is special of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from extract.datasets.contract import Dataset
from extract.sources.unusable import UnusableAnnotations
from stores.plugins import package_of, provided_by


def dataset_identity(dataset: Dataset, annotations: str) -> dict[str, Any]:
    """What a plan's identity says of a data set.

    Args: annotations: `extract.datasets.layouts.annotation_digest.digest_of` its annotations, or a word in
    its place.
    """
    lengths = {record.key: record.source_bytes for record in dataset.records}
    subset = dataset.subset
    return {
        "name": dataset.name,
        "split": dataset.split,
        "task": dataset.task,
        "num_classes": dataset.num_classes,  # a head is built, and its figures named, from the store alone
        "class_names": list(dataset.class_names),
        "records": {
            "count": len(lengths),
            "bytes": sum(lengths.values()),
            "keys_and_bytes_sha256": _digest(f"{key} {length}" for key, length in lengths.items()),
        },
        "annotations_sha256": annotations,
        "subset": None if subset is None else {"count": len(subset), "keys_sha256": _digest(subset)},
        **provided_by(package_of("permafrost.datasets", dataset.name)),
        **provided_by(package_of("permafrost.tasks", dataset.task), "task_package"),
        **_exceptions(dataset),
        **box_file(dataset),
        **own_description(dataset),
        **task_facts(dataset),
    }


def _exceptions(dataset: Dataset) -> dict[str, Any]:
    """What an identity says of a data set only where it is so: boxes alone, annotations that are left out."""
    unusable, found = unusable_annotations(dataset), only_boxes(dataset)
    found |= stuff_kind(dataset)
    if not has_truth(dataset):
        found["truth"] = False
    if unusable is not None:
        found["unusable_annotations"] = {"count": unusable.count, "of": unusable.total}
    return found


def own_description(dataset: Dataset) -> dict[str, Any]:
    """What an identity says of own data: how it is read, and its classes; nothing of another one."""
    found = getattr(dataset, "description", None)
    return {} if found is None else {"description": dict(found)}


def task_facts(dataset: Dataset) -> dict[str, Any]:
    """What an identity says of truth without classes, such as the unit of depth; nothing of any other one."""
    found = getattr(dataset, "task_facts", None)
    return {} if found is None else {"task_facts": dict(found)}


def box_file(dataset: Dataset) -> dict[str, Any]:
    """What an identity says of a data set of persons whose boxes are of a file; nothing of any other one."""
    boxes = getattr(dataset, "boxes", None)
    return {} if boxes is None else {"boxes": boxes.identity()}


def only_boxes(dataset: Dataset) -> dict[str, Any]:
    """What an identity says of a data set that has boxes and no masks; nothing of any other one."""
    return {"boxes_only": True} if getattr(dataset, "boxes_only", False) else {}


def has_truth(dataset: Dataset) -> bool:
    """Whether a split has annotations; not a test split whose truth is not published."""
    return bool(getattr(dataset, "has_truth", True))


def stuff_kind(dataset: Dataset) -> dict[str, Any]:
    """What an identity says of a data set whose rows hold stuff maps; nothing of any other one."""
    kind = getattr(dataset, "stuff_maps", None)
    return {} if kind is None else {"stuff": kind}


def unusable_annotations(dataset: Dataset) -> UnusableAnnotations | None:
    """Annotations that are left out of the store; None where all are used, or the data set has none such."""
    found: UnusableAnnotations | None = getattr(dataset, "unusable_annotations", None)
    return found


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()
