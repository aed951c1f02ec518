"""Recognises videos: lists that name them with labels, else folders of them by class."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from extract.datasets.own.describing.folder_look import (
    ONE_SPLIT,
    Draft,
    Look,
    few,
    split_name,
    training_splits,
)
from extract.datasets.own.description import Description
from extract.datasets.own.label_lists import Row, list_rows
from extract.datasets.own.labelled_clips import VideoIndex, class_clips
from extract.sources.listing import VIDEO_ENDINGS
from extract.sources.record import DatasetLayoutError

logger = logging.getLogger(__name__)

_KINETICS = "{youtube_id}_{time_start:06d}_{time_end:06d}"
_SAMPLED = 200
"""Rows of a list that are looked for."""
_NUMBER_DIGITS = 5


def video_draft(look: Look) -> Draft | None:
    """A description of layout `videolist` or `videofolder`; None where there are no videos."""
    if not any(look.others[f".{ending}"] for ending in VIDEO_ENDINGS):
        return None
    draft = _lists(look) or _folders(look)
    if draft is not None:
        for ending in VIDEO_ENDINGS:  # they are no odd files
            del look.others[f".{ending}"]
        if len(draft.splits) == 1:
            draft.open.append(ONE_SPLIT)
    return draft


def _lists(look: Look) -> Draft | None:
    roots = _video_roots(look)
    index = VideoIndex([look.root / root for root in roots])
    rows_of: dict[str, list[Row]] = {}
    options: dict[str, object] = {}
    draft = Draft(layout="videolist", splits={}, training=(), classes={}, class_counts={})
    for path in look.lists:
        stem = Path(path).stem
        split = split_name([stem, *stem.replace("-", "_").split("_")])
        found = None if split is None else _rows(look.root / path, index)
        if split is None or found is None:
            continue
        rows, options = found
        rows_of[split] = rows
        draft.splits = {**draft.splits, split: {"list": [path], "videos": roots}}
        missing = [file for _, file, label in rows if index.find(file, label) is None]
        draft.found.append(
            f"{split}: {len(rows)} videos in {path}, {len(rows) - len(missing)} of them are there"
        )
        if missing:
            draft.odd.append(f"{path}: videos that are in no folder: {few(missing)}")
    if not rows_of:
        return None
    draft.training = training_splits({split: len(rows) for split, rows in rows_of.items()})
    counts = {split: Counter(label for _, _, label in rows) for split, rows in rows_of.items()}
    draft.options = options
    _name_labels(draft, sorted({label for found in counts.values() for label in found}), counts)
    return draft


def _rows(path: Path, index: VideoIndex) -> tuple[list[Row], dict[str, object]] | None:
    """The rows of a list whose videos are mostly there, and the options that read it so."""
    for options in ({}, {"file": _KINETICS}, {"label": "template"}):
        try:
            rows = list_rows(_reading(options), path)
        except DatasetLayoutError:
            continue
        sample = rows[:: max(1, len(rows) // _SAMPLED)]
        there = sum(index.find(file, label) is not None for _, file, label in sample)
        labels = {label for _, _, label in rows}
        if sample and 2 * there >= len(sample) and "" not in labels:
            best: dict[str, object] = dict(options)
            if not options and path.suffix.lower() == ".json" and _has_templates(path):
                best["label"] = "template"
                rows = list_rows(_reading(best), path)
            return rows, best
    return None


def _has_templates(path: Path) -> bool:
    """Whether it is Something-Something's, whose classes are the templates of its labels."""
    try:
        return all(label for _, _, label in list_rows(_reading({"label": "template"}), path))
    except DatasetLayoutError:
        return False


def _reading(options: Mapping[str, object]) -> Description:
    """What list_rows reads of a description."""
    texts = {key: str(value) for key, value in options.items()}
    return Description(
        name="own",
        layout="videolist",
        data=".",
        splits={},
        training=(),
        classes={},
        **texts,  # type: ignore[arg-type]
    )


def _video_roots(look: Look) -> list[str]:
    """The highest folders that hold videos: those at the top, or the one that is looked at."""
    tops = {
        path.relative_to(look.root).parts[0] if path.parent != look.root else "."
        for path in look.root.rglob("*")
        if path.suffix[1:].lower() in VIDEO_ENDINGS
    }
    return ["."] if "." in tops else sorted(tops)


def _folders(look: Look) -> Draft | None:
    candidates = sorted({str(PurePosixPath(*parts[:-2])) for parts in _video_parts(look) if len(parts) > 1})
    named = [root for root in candidates if split_name(PurePosixPath(root).parts) is not None]
    roots = [root for root in named or candidates[:1] if _outermost(root, named or candidates[:1])]
    draft = Draft(layout="videofolder", splits={}, training=(), classes={}, class_counts={})
    counts: dict[str, Counter[str]] = {}
    for root in roots:
        split = split_name(PurePosixPath(root).parts) or "train"
        counts[split] = Counter(label for label, _, _ in class_clips(look.root / root, Counter()))
        draft.splits = {**draft.splits, split: {"videos": [root]}}
        draft.found.append(f"{split}: {counts[split].total()} videos in {len(counts[split])} class folders")
    labels = sorted({label for found in counts.values() for label in found})
    if len(labels) < 2:
        return None
    draft.training = training_splits({split: found.total() for split, found in counts.items()})
    _name_labels(draft, labels, counts)
    for split, found in counts.items():
        if lacking := [label for label in labels if not found[label]]:
            draft.odd.append(f"{split} has no videos of {few(lacking)}")
    return draft


def _video_parts(look: Look) -> list[tuple[str, ...]]:
    return [
        path.relative_to(look.root).parts
        for path in look.root.rglob("*")
        if path.suffix[1:].lower() in VIDEO_ENDINGS
    ]


def _outermost(root: str, roots: list[str]) -> bool:
    return not any(other != root and PurePosixPath(root).is_relative_to(other) for other in roots)


def _name_labels(draft: Draft, labels: list[str], counts: Mapping[str, Counter[str]]) -> None:
    """Classes from the labels; numbers stand for names that could not be found out."""
    if all(label.isdecimal() and len(label) <= _NUMBER_DIGITS for label in labels):
        draft.open.append("names of classes: the lists have numbers; give them their names")
    draft.labels = labels
    draft.classes = dict(enumerate(labels))
    draft.class_counts = {
        number: ", ".join(f"{counts[split][label]} in {split}" for split in counts)
        for number, label in enumerate(labels)
    }
