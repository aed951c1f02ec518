"""What lies in a folder of own data, by names alone; nothing is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from extract.sources.listing import IMAGE_ENDINGS, folders_below, is_hidden

SPLIT_WORDS = ("train", "training", "val", "valid", "validation", "test", "testing", "dev")
"""Names of splits; the first two are trained on."""
NAME_FILES = ("classes.txt", "labels.txt", "class_names.txt", "names.txt", "label_names.txt")
"""Lists of names of classes."""
ONE_SPLIT = "a split to test on: none was found; heads can be trained, not evaluated"
_LISTED = ("txt", "json", "csv", "xml", "yaml", "yml")


@dataclass(frozen=True, slots=True)
class Folder:
    """One folder, without those in it."""

    path: str
    """From the folder that is looked at; "" for itself."""
    images: Mapping[str, str]
    """File name by stem, of all endings but png; and of png where there are no others."""
    pngs: Mapping[str, str]
    """File name by stem."""


@dataclass(kw_only=True, slots=True)
class Look:
    """The folders that hold images, and the lists beside them."""

    root: Path
    folders: list[Folder] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    """Paths of text, json and xml files; of xml at most a few of each folder."""
    others: Counter[str] = field(default_factory=Counter)
    """Files of other endings."""


@dataclass(kw_only=True, slots=True)
class Draft:
    """A description to be written."""

    layout: str
    splits: Mapping[str, Mapping[str, Sequence[str]]]
    training: Sequence[str]
    classes: Mapping[int, str]
    class_counts: Mapping[int, str]
    """What was found of each class, in words."""
    labels: Sequence[str] = ()
    """Of a labelled layout, by class: its folder."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Further keys of the description."""
    found: list[str] = field(default_factory=list)
    """Facts: counts, sizes."""
    odd: list[str] = field(default_factory=list)
    """Files that do not fit."""
    open: list[str] = field(default_factory=list)
    """What could not be found out, and what was taken instead."""


def look_at(root: Path) -> Look:
    """Lists a folder and those below it. Raises OSError."""
    look = Look(root=root)
    for below, path in folders_below(root):
        images: dict[str, str] = {}
        pngs: dict[str, str] = {}
        xml = 0
        for entry in sorted(path.iterdir()):
            if entry.is_dir() or is_hidden(entry.name):
                continue
            ending = entry.suffix[1:].lower()
            if ending == "png":
                pngs[entry.stem] = entry.name
            elif ending in IMAGE_ENDINGS:
                images[entry.stem] = entry.name
            elif ending in _LISTED:
                xml += ending == "xml"
                if ending != "xml" or xml <= 3:
                    look.lists.append(f"{below}/{entry.name}" if below else entry.name)
            else:
                look.others[entry.suffix.lower() or "no ending"] += 1
        if images or pngs:
            look.folders.append(Folder(below, images, pngs))
    return look


def split_name(parts: Sequence[str]) -> str | None:
    """The name of a split among the parts of a path; None where there is none.

    >>> split_name(["images", "train"]), split_name(["images", "city"]), split_name(["train2017"])
    ('train', None, 'train2017')
    """
    for part in parts:
        word = part.lower().rstrip("0123456789_-")
        if word in SPLIT_WORDS:
            return part
    return None


def training_splits(sizes: Mapping[str, int]) -> list[str]:
    """Those to train on: named so, else the largest.

    >>> training_splits({"train": 3, "test": 9}), training_splits({"a": 3, "b": 9})
    (['train'], ['b'])
    """
    named = [split for split in sizes if split.lower().startswith("train")]
    return named or [max(sizes, key=sizes.__getitem__)]


def few(names: Sequence[str], shown: int = 3) -> str:
    """Some of many names.

    >>> few(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(ascii(name)[1:-1] for name in names[:shown]) + more
