"""Which layout a folder has, and the text of a description of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from extract.datasets.own.describing.class_folders import class_folder_draft
from extract.datasets.own.describing.depth_folders import depth_draft
from extract.datasets.own.describing.folder_look import Draft, Look, few, look_at
from extract.datasets.own.describing.instance_files import instance_draft
from extract.datasets.own.describing.label_files import labelled_json_draft, tar_draft
from extract.datasets.own.describing.mask_folders import mask_draft
from extract.datasets.own.describing.video_folders import video_draft
from extract.datasets.own.describing.voc_folders import voc_draft
from extract.datasets.own.description import LAYOUTS
from extract.datasets.own.description_file import read_description
from extract.datasets.own.ready_made_sets import FOLDER, ready_made_names
from extract.sources.record import DatasetLayoutError
from stores.plugins import plugins

_MOST_ODD = 10


def describe_folder(folder: Path) -> Draft:
    """A description of a folder, as far as its files say it.

    Raises DatasetLayoutError, which says what was looked for and found, where it has no known layout.
    """
    if not folder.is_dir():
        raise DatasetLayoutError(f"{folder} is no folder")
    look = look_at(folder)
    recognisers = (
        labelled_json_draft,
        instance_draft,
        voc_draft,
        depth_draft,
        mask_draft,
        class_folder_draft,
        tar_draft,
        video_draft,
    )
    draft = next((found for recognise in recognisers if (found := recognise(look)) is not None), None)
    if draft is None:
        raise DatasetLayoutError(_no_layout(look))
    draft.open += _ready_made(draft, folder)
    if look.others:
        kinds = [f"{count} of {ending}" for ending, count in look.others.most_common()]
        draft.odd.append(f"files of other kinds: {few(kinds)}")
    return draft


def _ready_made(draft: Draft, folder: Path) -> list[str]:
    """Ready-made descriptions whose folders these are, where the draft has no names of classes."""
    if not any(line.startswith("names of classes") for line in draft.open):
        return []
    found = []
    for name in ready_made_names():
        described = read_description(FOLDER / f"{name}.yaml", ready_made=True)
        paths = [
            path for split in described.training for each in described.splits[split].values() for path in each
        ]
        ends = [getattr(described, key, "") for key in ("image_suffix", "mask_suffix")]
        same_ends = [draft.options.get(key, "") for key in ("image_suffix", "mask_suffix")] == ends
        if described.layout == draft.layout and same_ends and all((folder / path).exists() for path in paths):
            found.append(
                f"whether it is {name}, whose folders these are: DATASET={name} has names of its classes"
            )
    return found


def description_text(draft: Draft, folder: Path, out: Path) -> str:
    """The YAML of a description with its comments; `data` is written from the folder of `out`."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", out.stem).strip("-.") or "own"
    if name in {*ready_made_names(), *plugins("permafrost.datasets", "extract.datasets")}:
        name = f"own-{name}"
    data = os.path.relpath(folder.resolve(), out.resolve().parent)
    if data.startswith("../../../.."):
        data = str(folder.resolve())
    lines = [
        f"# Written by `describe` from {folder.name}; check what is marked with ?",
        *(f"# {line}" for line in draft.found),
        *(f"# odd: {line}" for line in draft.odd[:_MOST_ODD]),
        *([f"# odd: and {len(draft.odd) - _MOST_ODD} more"] if len(draft.odd) > _MOST_ODD else []),
        *(f"# ? {line}" for line in draft.open),
        f"name: {_quoted(name)}",
        f"layout: {draft.layout}",
        f"data: {_quoted(data)}  # from the folder of this file",
        "splits:",
    ]
    for split, where in draft.splits.items():
        paths = ", ".join(f"{key}: {_path(paths)}" for key, paths in where.items())
        lines.append(f"  {_quoted(split)}: {{{paths}}}")
    lines += [
        f"training: {_items(draft.training)}  # the other splits are for tests",
        *(["classes:"] if LAYOUTS[draft.layout].has_classes else []),
    ]
    for value, class_name in draft.classes.items():
        label = _quoted(draft.labels[value]) if draft.labels else value
        lines.append(f"  {label}: {_quoted(class_name)}  # {draft.class_counts.get(value, '')}".rstrip(" #"))
    for key, option in draft.options.items():
        lines.append(f"{key}: {json.dumps(option)}")
    return "\n".join(lines) + "\n"


def _path(paths: Sequence[str]) -> str:
    return _quoted(paths[0]) if len(paths) == 1 else _items(paths)


def _items(texts: Sequence[str]) -> str:
    return "[" + ", ".join(map(_quoted, texts)) + "]"


def _quoted(text: str) -> str:
    """Text as YAML has it: plain where no reader takes it for anything else.

    >>> _quoted("images/train"), _quoted("no"), _quoted("a: b")
    ('images/train', '"no"', '"a: b"')
    """
    plain = re.fullmatch(r"[A-Za-z_.][A-Za-z0-9_./ -]*[A-Za-z0-9_/.-]|[A-Za-z]", text)
    words = ("y", "n", "yes", "no", "on", "off", "true", "false", "null", ".", "..", ".nan", ".inf")
    if plain and text.lower() not in words:
        return text
    return json.dumps(text, ensure_ascii=False)


def _no_layout(look: Look) -> str:
    shown = [
        f"{folder.path or '.'} ({len(folder.images)} images, {len(folder.pngs)} png)"
        for folder in look.folders
    ]
    found = few(shown) if shown else "no folder of images"
    lists = f"; lists: {few(look.lists)}" if look.lists else ""
    return (
        f"{look.root}: no known layout: looked for a .json that lists images, annotations and categories "
        "(coco-json), for .xml files of images (voc-xml), for folders of images with label maps (.png, one "
        "value a pixel) of equal names (masks), for folders named depth "
        "with 16-bit PNGs (depth), for folders of images by class (imagefolder), for a .json of "
        f"labels without boxes (inat-json) and for .tar files of images and .cls labels (image-tars), and "
        "for videos in class folders (videofolder) or lists (videolist); found "
        f"{found}{lists}; a description can also be written by hand "
        "(docs/own-data.md)"
    )
