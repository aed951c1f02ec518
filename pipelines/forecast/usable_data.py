"""What of a data set cannot be used, known before the first record is decoded: reported, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extract.datasets import Dataset
from extract.planning.dataset_identity import unusable_annotations
from extract.planning.label_sample import LabelSample
from extract.sources.listing import number_of
from pipelines.errors import WorkFailed

TOLERATED_SHARE = 0.05
"""Of annotations that cannot be used, by default."""
TOLERATED_COUNT = 10
"""Annotations that cannot be used and are tolerated in any data set, but never more than half of it."""
_SHOWN = 3
_ADVICE = {
    "segmentation": "label maps of other classes, or with another ignored label, are own data: "
    "`describe FOLDER --out my.yaml` writes a description of them (docs/own-data.md)",
}


def known_failures(dataset: Dataset) -> Mapping[str, str]:
    """Why records of the subset will be skipped, by key, as far as files and annotations say it."""
    reasons: Mapping[str, str] = getattr(dataset, "unusable_records", {})
    subset = dataset.subset
    return {key: why for key, why in reasons.items() if subset is None or key in subset}


def allowed_failures(dataset: Dataset) -> int:
    """1 % of the records, at least 10, but never all: a store without a row is of no use."""
    records = len(dataset.records if dataset.subset is None else dataset.subset)
    return min(max(10, records // 100), records - 1)


def require_usable(
    dataset: Dataset, labels: LabelSample | None, max_failed: int | None, max_unusable: float | None
) -> None:
    """Raises WorkFailed where more cannot be used than may be skipped.

    Args:
        dataset: open.
        labels: a look at its label maps.
        max_failed: records that may be skipped; None: `allowed_failures`.
        max_unusable: share of annotations that may be left out; None: TOLERATED_SHARE, or a few.
    """
    limit = allowed_failures(dataset) if max_failed is None else max_failed
    failures = known_failures(dataset)
    if len(failures) > limit:
        raise WorkFailed(
            f"{dataset.name}: {len(failures)} of {len(dataset.records)} records cannot be used, at most "
            f"{limit} may be skipped (--max-failed): {_shown(failures)}"
        )
    if labels is not None and labels.estimated_failures > limit:
        raise WorkFailed(
            f"{dataset.name}: {len(labels.problems)} of {labels.maps} sampled label maps cannot be used, at "
            f"most {limit} records may be skipped (--max-failed): {_shown(labels.problems)}; "
            f"{_ADVICE[dataset.task]}"
        )
    unusable = unusable_annotations(dataset)
    if unusable is None:
        return
    share = TOLERATED_SHARE if max_unusable is None else max_unusable
    few = min(TOLERATED_COUNT, unusable.total // 2) if max_unusable is None else 0
    if unusable.count > max(few, share * unusable.total):
        raise WorkFailed(
            f"{dataset.name}: {unusable.line()}; at most {share:.0%} may be left out (--max-unusable): "
            "correct the annotation file, or allow more"
        )


def _shown(reasons: Mapping[str, str]) -> str:
    shown = "; ".join(f"{key}: {why}" for key, why in list(reasons.items())[:_SHOWN])
    return shown + ("; ..." if len(reasons) > _SHOWN else "")


def unusable_lines(dataset: Dataset, labels: LabelSample | None) -> list[str]:
    """What `plan` and `extract` print of it."""
    lines = []
    if failures := known_failures(dataset):
        lines.append(f"  unusable  {number_of(len(failures), 'record')} will be skipped: {_shown(failures)}")
    if (unusable := unusable_annotations(dataset)) is not None:
        lines.append(f"  unusable  {unusable.line()}")
    if labels is not None:
        lines.append(f"  labels    {labels.line()}")
        if labels.problems:
            lines.append(f"  unusable  {len(labels.problems)} of these label maps: {_shown(labels.problems)}")
    return lines


def unusable_summary(dataset: Dataset, labels: LabelSample | None) -> dict[str, Any]:
    """The same for `--json`."""
    unusable = unusable_annotations(dataset)
    return {
        "unusable_annotations": None if unusable is None else unusable.to_json(),
        "unusable_records": dict(known_failures(dataset)),
        **({} if labels is None else {"labels": labels.to_json()}),
    }
