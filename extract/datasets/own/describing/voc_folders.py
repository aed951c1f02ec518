"""Recognises Pascal VOC's layout: folders of xml files, the images of their names, and lists of names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from extract.datasets.own.describing.folder_look import Draft, Look, few, split_name, training_splits
from extract.datasets.own.voc_xml import NotVoc, listed_names, read_voc
from extract.sources.listing import is_hidden
from extract.sources.record import DatasetLayoutError

_LISTS = "ImageSets/Main"


@dataclass(kw_only=True, slots=True)
class _Found:
    """What the xml files say."""

    objects: Counter[str] = field(default_factory=Counter)
    difficult: int = 0
    least_corner: float = 1.0
    broken: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int] | None] = field(default_factory=Counter)


def voc_draft(look: Look) -> Draft | None:
    """A description of layout `voc-xml`; None where no folder holds xml files of annotations with images."""
    folders = sorted({str(PurePosixPath(path).parent) for path in look.lists if path.endswith(".xml")})
    splits: dict[str, dict[str, list[str]]] = {}
    names_of: dict[str, list[str]] = {}
    found, odd = _Found(), list[str]()
    for folder in folders:
        stems = _read_folder(look.root / folder, found)
        images = _folder_of_images(look, stems)
        if images is None:
            if stems:
                odd.append(f"{folder}: {len(stems)} xml files without an image of their names: left out")
            continue
        where = {"images": [images], "annotations": [folder]}
        lonely = sorted(set(stems) - _stems_of(look, images))
        if lonely:
            odd.append(f"{len(lonely)} xml files without an image: {few(lonely)}")
        for split, part, names in _splits(look, folder, where, stems):
            splits[split], names_of[split] = part, names
    if not splits or not found.objects:
        return None
    sizes = {split: len(names) for split, names in names_of.items()}
    classes = dict(enumerate(sorted(found.objects), start=1))
    draft = Draft(
        layout="voc-xml",
        splits=splits,
        training=training_splits(sizes),
        classes=classes,
        class_counts={number: f"{found.objects[name]} objects" for number, name in classes.items()},
        odd=odd + [f"xml that cannot be read: {few(found.broken)}"] * bool(found.broken),
    )
    draft.found += [f"{split}: {count} images with an xml file each" for split, count in sizes.items()]
    draft.found.append(_facts(found))
    if found.least_corner < 1:
        draft.options = {"first_pixel": 0}
        draft.open.append("whether pixels count from 0 or, as in VOC, from 1: boxes begin at 0; taken as 0")
    if len(splits) == 1:
        draft.open.append("a split to test on: none was found; heads can be trained, not evaluated")
    return draft


def _read_folder(folder: Path, found: _Found) -> list[str]:
    """The names of a folder's annotations; counts what they hold."""
    stems = []
    for path in sorted(folder.glob("*.xml")):
        if is_hidden(path.name):
            continue
        try:
            image = read_voc(path.read_bytes())
        except NotVoc as error:
            found.broken.append(f"{path.name} ({error})")
            continue
        stems.append(path.stem)
        found.sizes[image.hw] += 1
        for each in image.objects:
            found.objects[each["name"]] += 1
            found.difficult += each["difficult"]
            found.least_corner = min(found.least_corner, *(each["corners"] or (1.0,))[:2])
    found.broken = [text for text in found.broken if "expected <annotation>" not in text]
    return stems


def _folder_of_images(look: Look, stems: Sequence[str]) -> str | None:
    """The folder that has most images of these names, at least half of them."""
    held = {
        folder.path or ".": len(set(stems) & _stems_of(look, folder.path or ".")) for folder in look.folders
    }
    best = max(sorted(held), key=held.__getitem__, default=None)
    return best if best is not None and stems and 2 * held[best] >= len(stems) else None


def _stems_of(look: Look, path: str) -> set[str]:
    return {
        stem
        for folder in look.folders
        if (folder.path or ".") == path
        for stem in (*folder.images, *folder.pngs)
    }


def _splits(
    look: Look, folder: str, where: Mapping[str, list[str]], stems: Sequence[str]
) -> list[tuple[str, dict[str, list[str]], list[str]]]:
    """Name, paths and images of each split: those of lists, else all of the folder."""
    known, found = set(stems), []
    for path in look.lists:
        name = Path(path).stem
        if not path.endswith(".txt") or split_name([name]) is None:
            continue
        try:
            names = listed_names(look.root / path)
        except DatasetLayoutError:
            continue
        if names and 2 * len(known & set(names)) >= len(names):
            found.append((name, {**where, "list": [path]}, names))
    of_boxes = [each for each in found if _LISTS in each[1]["list"][0]]  # VOC has lists of other tasks too
    if of_boxes or found:
        return of_boxes or found
    parts = PurePosixPath(folder).parts
    return [(split_name(parts) or "train", dict(where), list(stems))]


def _facts(found: _Found) -> str:
    shown = [f"{hw[1]}x{hw[0]} ({count})" for hw, count in found.sizes.most_common() if hw is not None]
    difficult = (
        f", {found.difficult} of them difficult: not trained on, not scored" if found.difficult else ""
    )
    unsized = found.sizes[None]
    return f"{found.objects.total()} objects with boxes and no masks{difficult}; pixels {few(shown)}" + (
        f"; {unsized} xml files without a size" if unsized else ""
    )
