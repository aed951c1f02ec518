"""Subsets of records: a share, so many of each class, a fold of the semi-supervised benchmarks, or keys of a
file."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:%|pct)")
_SHOTS = re.compile(r"(\d{1,6})-?shots?(?:-seed(\d{1,9}))?")
_FOLD = re.compile(r"coco-(\d+(?:\.\d+)?)pct-fold(\d+)")

LISTED = "listed"
"""The store target with a record's position in the list that folds are drawn from, and the list's length."""
Labels = Mapping[str, int]
"""By record key: the number of its class."""
Listed = Mapping[str, tuple[int, int]]
"""By record key: the record's position in the list that folds were drawn from, and the length of that
list."""


def key_order(keys: Iterable[str]) -> list[str]:
    """The keys ordered by their sha256: a shuffle that needs no seed and is the same everywhere."""
    return sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())


def fold_positions(count: int, percent: float, fold: int) -> frozenset[int]:
    """Positions, among `count` listed images, of a fold of the semi-supervised COCO benchmarks.

    It is the procedure that wrote the usual files `instances_train2017.<fold>@<percent>.json` (STAC
    prepare_coco_data.py, Soft Teacher and mmdetection@06278f7 tools/misc/split_coco.py): drawn with
    replacement by numpy's legacy generator, whose numbers never change, so that some images are drawn twice
    and a fold is smaller than its name. Of a list too short for one image it takes one.

    >>> len(fold_positions(118287, 1, 1)), sorted(fold_positions(80, 10, 1))
    (1174, [5, 9, 12, 37, 64, 72, 75, 79])
    """
    size = max(1, int(percent / 100.0 * count))
    return frozenset(np.random.RandomState(fold).choice(range(count), size=size).tolist())


def fold_file(subset: str) -> str | None:
    """The usual name of a fold's annotation file; None for another subset.

    >>> fold_file("coco-10pct-fold2"), fold_file("10%")
    ('instances_train2017.2@10.json', None)
    """
    fold = _FOLD.fullmatch(subset.strip())
    return f"instances_train2017.{int(fold[2])}@{float(fold[1]):g}.json" if fold else None


def shots(labels: Labels, count: int, seed: int = 0) -> frozenset[str]:
    """So many records of each class, of a smaller class all: the first in the order of a hash of seed, class
    and key, so that fewer shots of a seed lie within more.

    >>> sorted(shots({"a": 0, "b": 1, "c": 0, "d": 0, "e": 1, "f": 1}, 1))
    ['b', 'd']
    """
    by_class: dict[int, list[str]] = {}
    for key, label in labels.items():
        by_class.setdefault(label, []).append(key)
    kept: list[str] = []
    for label, keys in by_class.items():
        order = {key: hashlib.sha256(f"{seed}\0{label}\0{key}".encode()).digest() for key in keys}
        kept += sorted(keys, key=order.__getitem__)[:count]
    return frozenset(kept)


def subset_keys(
    keys: Iterable[str],
    subset: str,
    listed: Callable[[], Listed] | None = None,
    labels: Callable[[], Labels] | None = None,
) -> frozenset[str]:
    """The keys that a subset keeps.

    A share takes the first records in `key_order`, so that a smaller share lies within a larger one.

    >>> sorted(subset_keys(["a", "b", "c", "d"], "50%") | subset_keys(["a", "b", "c", "d"], "25pct"))
    ['c', 'd']

    Args:
        keys: of all records, each once.
        subset: a share such as `1%` or `1pct`; `5shot` or `5shot-seed3`, see `shots`; a fold such as
        `coco-1pct-fold1`, see `fold_positions`; or the path of a file with one key a line, or of a COCO
        annotation file (.json), whose images it names.
        listed: for folds; None where the records have no such order.
        labels: for shots; None where the records have no class each.

    Raises:
        ValueError: a share outside 0 to 100 %, a fold of records without order, or a file with keys that
        are not among `keys`, or with none. A COCO file may name other images too: those without annotations
        are no records to train on. OSError: neither a share nor a readable file.
    """
    ordered = key_order(keys)
    if share := _SHARE.fullmatch(subset.strip()):
        return frozenset(ordered[: math.ceil(len(ordered) * _percent(share[1], subset) / 100)])
    if shot := _SHOTS.fullmatch(subset.strip()):
        if labels is None or not int(shot[1]):
            raise ValueError(
                f"subset {subset!r}: "
                + ("expected 1 or more" if labels else "shots need records of one class each")
            )
        of_class = labels()
        return _named(
            set(shots({key: of_class[key] for key in ordered}, int(shot[1]), int(shot[2] or 0))),
            ordered,
            subset,
        )
    if fold := _FOLD.fullmatch(subset.strip()):
        if listed is None:
            raise ValueError(
                f"subset {subset!r}: folds are defined for COCO's list of images, which these records lack; "
                f"use a share such as 10%"
            )
        return _fold(ordered, listed(), _percent(fold[1], subset), int(fold[2]), subset)
    path = Path(subset)
    if not path.is_file():
        raise FileNotFoundError(
            f"subset {subset!r} is neither a share such as 1%, shots such as 5shot, a fold such as "
            "coco-1pct-fold1, nor a file with one key a line"
        )
    if path.suffix == ".json":
        return _named(_coco_keys(path).intersection(ordered), ordered, subset)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return _named({line.strip() for line in lines if line.strip()}, ordered, subset)


def _percent(digits: str, subset: str) -> float:
    percent = float(digits)
    if not 0 < percent <= 100:
        raise ValueError(f"subset {subset!r}: a share must be above 0 % and at most 100 %")
    return percent


def _fold(keys: list[str], listed: Listed, percent: float, fold: int, subset: str) -> frozenset[str]:
    if fold >= 1 << 32:
        raise ValueError(f"subset {subset!r}: expected a fold below {1 << 32}")
    counts = {listed[key][1] for key in keys}
    if len(counts) > 1:
        raise ValueError(
            f"subset {subset!r}: a fold needs one list of images, these records come from lists of "
            f"{sorted(counts)[:4]} images"
        )
    positions = fold_positions(counts.pop(), percent, fold)
    return _named({key for key in keys if listed[key][0] in positions}, keys, subset)


def _coco_keys(path: Path) -> set[str]:
    try:
        return {Path(image["file_name"]).stem for image in json.loads(path.read_bytes())["images"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"subset file {path} is not a COCO annotation file: {type(error).__name__}: {str(error)[:160]}"
        ) from None


def _named(named: set[str], keys: list[str], subset: str) -> frozenset[str]:
    unknown = sorted(named.difference(keys))
    if unknown or not named:
        found = f"{len(unknown)} keys without a record, such as {unknown[0]!r}" if unknown else "no keys"
        raise ValueError(f"subset {subset} holds {found}; expected keys such as {min(keys)!r}")
    return frozenset(named)
