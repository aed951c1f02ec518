"""Recognises labels in files: iNaturalist's json, and tars of photographs with `.cls` members."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from extract.datasets.coco_json.ids import whole_number
from extract.datasets.layouts.coco_files import in_folders
from extract.datasets.layouts.labelled_images import images_of_tars
from extract.datasets.own.describing.folder_look import (
    NAME_FILES,
    ONE_SPLIT,
    Draft,
    Look,
    split_name,
    training_splits,
)
from extract.sources.listing import MissingFile, is_hidden
from extract.sources.record import DatasetLayoutError
from extract.sources.tar_index import HostileTarError
from extract.sources.text_lists import read_lines

_SAMPLED = 50
"""Images of a file that are looked for in every folder."""
_LISTS = ("images", "annotations", "categories")


def labelled_json_draft(look: Look) -> Draft | None:
    """A description of layout `inat-json`; None where no json lists images, categories and labels without
    boxes."""
    files = {path: whole for path in look.lists if (whole := _labels_in(look.root / path)) is not None}
    if not files:
        return None
    draft = Draft(layout="inat-json", splits={}, training=(), classes={}, class_counts={})
    sizes: dict[str, int] = {}
    counts: Counter[int] = Counter()
    for path, whole in files.items():
        folder = _folder_of(look, whole)
        if folder is None:
            draft.odd.append(f"{path} lists images that are in no folder: left out")
            continue
        stem = Path(path).stem
        split = split_name([re.sub(r"\d+$", "", stem), *stem.split("_")]) or stem
        draft.splits = {**draft.splits, split: {"annotations": [path], "images": [folder]}}
        sizes[split] = len(whole["images"])
        draft.classes = {**draft.classes, **_categories(whole)}
        counts.update(whole_number(each.get("category_id")) or 0 for each in whole["annotations"])
        draft.found.append(f"{split}: {len(whole['images'])} images, {len(whole['annotations'])} labels")
    if not sizes:
        return None
    draft.classes = dict(sorted(draft.classes.items()))
    draft.training = training_splits(sizes)
    draft.class_counts = {number: f"{counts[number]} images" for number in draft.classes}
    if len(sizes) == 1:
        draft.open.append(ONE_SPLIT)
    return draft


def tar_draft(look: Look) -> Draft | None:
    """A description of layout `image-tars`; None where there are no tars of photographs with labels."""
    tars = sorted(path for path in look.root.rglob("*.tar") if not is_hidden(path.name))
    by_split: dict[str, list[str]] = {}
    counts: dict[str, Counter[str]] = {}
    for tar in tars:
        path = tar.relative_to(look.root)
        try:
            labels = Counter(image.label for image in images_of_tars([tar]))
        except (DatasetLayoutError, HostileTarError):
            continue
        words = re.split(r"[^A-Za-z]+", tar.stem)
        split = split_name([*path.parent.parts, *words]) or "train"
        by_split.setdefault(split, []).append(path.as_posix())
        counts.setdefault(split, Counter()).update(labels)
    if not by_split:
        return None
    draft = Draft(
        layout="image-tars",
        splits={split: {"tars": paths} for split, paths in by_split.items()},
        training=training_splits({split: found.total() for split, found in counts.items()}),
        classes={},
        class_counts={},
        found=[
            f"{split}: {found.total()} images of {len(found)} labels in "
            + ("1 tar" if len(by_split[split]) == 1 else f"{len(by_split[split])} tars")
            for split, found in counts.items()
        ],
    )
    look.others.subtract({".tar": sum(map(len, by_split.values()))})
    look.others = +look.others  # the tars that are read are no odd files
    _name_labels(draft, look, sum(counts.values(), Counter()))
    if len(counts) == 1:
        draft.open.append(ONE_SPLIT)
    return draft


def _name_labels(draft: Draft, look: Look, total: Counter[str]) -> None:
    """Classes from a list of names beside the tars, else from the labels themselves."""
    if not all(label.isdecimal() and len(label) < 6 for label in total):
        draft.labels = sorted(total)
        draft.classes = dict(enumerate(draft.labels))
    else:
        count = max(map(int, total)) + 1
        listed = next((path for path in look.lists if Path(path).name.lower() in NAME_FILES), None)
        names = [line for line in read_lines(look.root / listed) if line] if listed else []
        if len(names) < count or len(set(names)) < len(names):
            names = [f"class {number}" for number in range(count)]
            draft.open.append(
                "names of classes: no list such as classes.txt was found; give them their names"
            )
        draft.labels = [str(number) for number in range(len(names))]
        draft.classes = dict(enumerate(names))
    draft.class_counts = {number: f"{total[label]} images" for number, label in enumerate(draft.labels)}


def _labels_in(path: Path) -> Mapping[str, Any] | None:
    """The content of a json of labels without boxes; None for another file."""
    if path.suffix.lower() != ".json":
        return None
    try:
        whole = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(whole, dict) or not all(isinstance(whole.get(name), list) for name in _LISTS):
        return None
    if not all(isinstance(each, dict) for name in _LISTS for each in whole[name]):
        return None
    has_labels = whole["images"] and whole["annotations"]
    return whole if has_labels and not any("bbox" in each for each in whole["annotations"]) else None


def _categories(whole: Mapping[str, Any]) -> dict[int, str]:
    found = {whole_number(each.get("id")): str(each.get("name")).strip() for each in whole["categories"]}
    return {number: name for number, name in found.items() if number is not None}


def _folder_of(look: Look, whole: Mapping[str, Any]) -> str | None:
    """The folder below which most of a sample of the images lie."""
    names = [str(image.get("file_name")) for image in whole["images"]][:_SAMPLED]
    candidates = {"."}
    for folder in look.folders:
        parents = PurePosixPath(folder.path or ".")
        candidates |= {str(parents), *map(str, parents.parents)}
    held = {}
    for folder_path in sorted(candidates):
        find = in_folders([look.root / folder_path])
        held[folder_path] = sum(not isinstance(find(name), MissingFile) for name in names)
    best = max(held, key=held.__getitem__)
    return best if held[best] else None
