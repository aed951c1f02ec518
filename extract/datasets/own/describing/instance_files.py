"""Recognises instances files in COCO's format, and finds the folders of their images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from extract.datasets.coco_json.annotations import has_mask
from extract.datasets.coco_json.ids import whole_number
from extract.datasets.layouts.coco_files import in_folders
from extract.datasets.own.describing.folder_look import (
    ONE_SPLIT,
    Draft,
    Look,
    few,
    split_name,
    training_splits,
)
from extract.sources.listing import MissingFile

_LISTS = ("images", "annotations", "categories")
_HEAD_BYTES = 1 << 20
_PROBED = 50
"""Images of a file that are looked for in every folder."""


def instance_draft(look: Look) -> Draft | None:
    """A description of layout `coco-json`; None where no file lists images, annotations and categories."""
    files = {path: whole for path in look.lists if (whole := _instances(look.root / path)) is not None}
    if not files:
        return None
    draft = Draft(layout="coco-json", splits={}, training=(), classes={}, class_counts={})
    splits: dict[str, dict[str, list[str]]] = {}
    sizes: dict[str, int] = {}
    objects: Counter[int] = Counter()
    names: dict[int, str] = {}
    for path, whole in files.items():
        folders = _folders_of(look, whole, draft, path)
        if not folders:
            continue
        split = _split_of(path, splits)
        splits[split] = {"annotations": [path], "images": folders}
        sizes[split] = len(whole["images"])
        _add_names(names, whole, path, draft)
        objects.update(
            number
            for each in whole["annotations"]
            if (number := whole_number(each.get("category_id"))) is not None
        )
        draft.found.append(_facts(split, whole))
    if not splits or not names:
        return None
    draft.splits, draft.training = splits, training_splits(sizes)
    draft.classes = dict(sorted(names.items()))
    draft.class_counts = {number: f"{objects[number]} objects" for number in draft.classes}
    if len(splits) == 1:
        draft.open.append(ONE_SPLIT)
    unknown = sorted(objects.keys() - names.keys())
    if unknown:
        draft.odd.append(f"annotations of categories that no file names: {few(list(map(str, unknown)))}")
    return draft


def _instances(path: Path) -> Mapping[str, Any] | None:
    """The content of an instances file; None for another file."""
    if path.suffix.lower() != ".json":
        return None
    try:
        with path.open("rb") as file:
            if b"{" not in file.read(_HEAD_BYTES)[:64]:
                return None
        whole = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(whole, dict) or not all(_are_objects(whole.get(name)) for name in _LISTS):
        return None
    return (
        whole
        if whole["images"] and all(isinstance(i.get("file_name"), str) for i in whole["images"])
        else None
    )


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _folders_of(look: Look, whole: Mapping[str, Any], draft: Draft, path: str) -> list[str]:
    """The folders below which the images lie: the one that has most of a sample, and others for the rest."""
    every = [image["file_name"].replace("\\", "/").removeprefix("./") for image in whole["images"]]
    sample = every[:: max(1, len(every) // _PROBED)]
    candidates = {"."}
    for folder in look.folders:
        parents = PurePosixPath(folder.path or ".")
        candidates |= {str(parents), *map(str, parents.parents)}
    chosen: list[str] = []
    rest = sample
    while rest:
        held = {folder: len(rest) - len(_absent(look.root / folder, rest)) for folder in candidates}
        best = max(sorted(held), key=held.__getitem__)
        if not held[best]:
            break
        chosen.append(best)
        rest = _absent(look.root / best, rest)
    if not chosen:
        draft.odd.append(f"{path} lists images that are in no folder, such as {every[0][:100]}: left out")
    elif rest:
        draft.odd.append(f"{path}: images that were not found, such as {few(rest)}")
    return chosen


def _absent(folder: Path, names: Sequence[str]) -> list[str]:
    """Which of the images are not below a folder."""
    find = in_folders([folder])
    return [name for name in names if isinstance(find(name), MissingFile)]


def _split_of(path: str, taken: Mapping[str, Any]) -> str:
    stem = Path(path).stem
    parts = [stem, *stem.replace("-", "_").split("_"), *reversed(Path(path).parent.parts)]
    name = split_name(parts) or "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)
    return name if name not in taken else f"{name}-{len(taken) + 1}"


def _add_names(names: dict[int, str], whole: Mapping[str, Any], path: str, draft: Draft) -> None:
    for category in whole["categories"]:
        number, name = whole_number(category.get("id")), str(category.get("name")).strip()
        if number is None:
            draft.odd.append(f"{path}: category {name[:40]} has no whole number as its id")
        elif names.setdefault(number, name) != name:
            draft.open.append(
                f"the name of category {number}: {names[number]!r} or, in {path}, {name[:40]!r}; the first "
                "is taken, and that file will be refused until it agrees"
            )


def _facts(split: str, whole: Mapping[str, Any]) -> str:
    annotations: Sequence[Mapping[str, Any]] = whole["annotations"]
    kind = "masks" if any(map(has_mask, annotations)) else "boxes and no masks: heads are of boxes only"
    sizes = Counter((image.get("width"), image.get("height")) for image in whole["images"])
    shown = ", ".join(f"{w}x{h} ({count})" for (w, h), count in sizes.most_common(3))
    more = f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else ""
    without = len(whole["images"]) - len({each.get("image_id") for each in annotations})
    empty = f", {without} without an object" if without > 0 else ""
    return (
        f"{split}: {len(whole['images'])} images{empty}, {len(annotations)} objects with {kind}; "
        f"pixels {shown}{more}"
    )
