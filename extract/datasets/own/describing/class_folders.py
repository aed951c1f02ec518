"""Recognises folders of photographs by class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from extract.datasets.layouts.synsets import short_names
from extract.datasets.own.describing.folder_look import (
    ONE_SPLIT,
    Draft,
    Folder,
    Look,
    few,
    split_name,
    training_splits,
)
from extract.sources.byte_sources import FileSource, SourceError, image_size

_SAMPLED = 50
"""Photographs of a split whose headers are read."""
_WNID = re.compile(r"n\d{8}")


def class_folder_draft(look: Look) -> Draft | None:
    """A description of layout `imagefolder`; None where images do not lie in two class folders or more."""
    holding = [folder for folder in look.folders if folder.path]
    roots = _roots(holding)
    if not roots:
        return None
    draft = Draft(layout="imagefolder", splits={}, training=(), classes={}, class_counts={})
    counts: dict[str, Counter[str]] = {}
    for root in sorted(roots):
        split = split_name(list(reversed(root.split("/")))) or (
            "train" if root == "." else root.replace("/", "-")
        )
        found = _of_root(holding, root)
        draft.splits = {**draft.splits, split: {"images": [root]}}
        counts[split] = found
        draft.found.append(_facts(look, split, holding, root, found))
    names = sorted({name for found in counts.values() for name in found})
    draft.training = training_splits({split: found.total() for split, found in counts.items()})
    total = Counter[str]()
    for found in counts.values():
        total.update(found)
    draft.labels = names
    draft.classes = dict(enumerate(_named(draft, names)))
    draft.class_counts = {
        number: ", ".join(f"{counts[split][name]} in {split}" for split in counts)
        for number, name in enumerate(names)
    }
    for split, found in counts.items():
        lacking = [name for name in names if not found[name]]
        if lacking:
            draft.odd.append(f"{split} has no images of {few(lacking)}")
    _note_loose(draft, look, roots)
    if len(counts) == 1:
        draft.open.append(ONE_SPLIT)
    return draft


def _roots(holding: Sequence[Folder]) -> set[str]:
    """The folders whose folders are classes: named after splits where some are, else the one that
    holds all."""
    parents = {folder.path.split("/")[0] for folder in holding if folder.path.count("/") >= 1}
    named: set[str] = set()
    for folder in holding:
        parts = folder.path.split("/")
        for depth in range(1, len(parts)):
            if split_name([parts[depth - 1]]) is not None:
                named.add("/".join(parts[:depth]))
                break
    if named:
        return {root for root in named if len(_of_root(holding, root)) > 1}
    if len(parents) == 1 and len(_of_root(holding, "")) == 1:  # one folder around the class folders
        (only,) = parents
        return {only} if len(_of_root(holding, only)) > 1 else set()
    return {"."} if len(_of_root(holding, "")) > 1 else set()


def _of_root(holding: Sequence[Folder], root: str) -> Counter[str]:
    """Images by class folder."""
    before = "" if root in ("", ".") else f"{root}/"
    found: Counter[str] = Counter()
    for folder in holding:
        if folder.path.startswith(before) and folder.path != root:
            found[folder.path[len(before) :].split("/")[0]] += len(folder.images) + len(folder.pngs)
    return found


def _facts(look: Look, split: str, holding: Sequence[Folder], root: str, found: Counter[str]) -> str:
    before = "" if root == "." else f"{root}/"
    paths = [
        look.root / folder.path / name
        for folder in holding
        if folder.path.startswith(before)
        for name in (*folder.images.values(), *folder.pngs.values())
    ]
    sizes: Counter[tuple[int, int]] = Counter()
    for path in paths[:: max(1, len(paths) // _SAMPLED)]:
        try:
            sizes[image_size(FileSource(path, path.stat().st_size))] += 1
        except (SourceError, OSError):
            continue
    shown = ", ".join(f"{w}x{h}" for (h, w), _ in sizes.most_common(3))
    more = " and others" if len(sizes) > 3 else ""
    least, most = min(found.values()), max(found.values())
    each = f"{least}" if least == most else f"{least} to {most}"
    return f"{split}: {found.total()} images in {len(found)} class folders, {each} each; pixels {shown}{more}"


def _note_loose(draft: Draft, look: Look, roots: set[str]) -> None:
    for folder in look.folders:
        if (folder.path or ".") in roots and (loose := [*folder.images.values(), *folder.pngs.values()]):
            draft.odd.append(
                f"{len(loose)} images beside the class folders of {folder.path or '.'}: {few(loose)}"
            )


def _named(draft: Draft, folders: Sequence[str]) -> list[str]:
    """The names of class folders: the folder's own, and of ImageNet's synsets their first name."""
    if not folders or not all(_WNID.fullmatch(folder) for folder in folders):
        return list(folders)
    named = short_names(folders)
    if named is None:
        draft.open.append("names of classes: the folders are WordNet ids; give them names")
        return list(folders)
    draft.found.append("class folders are ImageNet's synsets, with their first names")
    return named
