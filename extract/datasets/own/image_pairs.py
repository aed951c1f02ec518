"""Pairs of an image and its truth of own data, in folders of equal names or in lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from extract.datasets.layouts.label_maps import Pair
from extract.datasets.own.advice import DESCRIBE, contents
from extract.datasets.own.description import Description
from extract.sources.byte_sources import ByteSource, FileSource
from extract.sources.listing import (
    IMAGE_ENDINGS,
    MissingFile,
    NoAnnotation,
    folders_below,
    missing_reasons,
    number_of,
    paired,
    require_printable,
    sources_by_stem,
)
from extract.sources.record import DatasetLayoutError
from extract.sources.text_lists import read_lines


@dataclass(frozen=True, slots=True)
class Truth:
    """The files beside images."""

    kind: str
    """For messages: mask, depth map."""
    key: str
    """Of a split in a description: its folders."""
    endings: tuple[str, ...]
    """Of its files."""
    suffix_field: str
    """Of a description: what the stems end with beyond the image's."""

    def suffix(self, description: Description) -> str:
        """What the stems of these files end with."""
        return str(getattr(description, self.suffix_field))


MASKS = Truth("mask", "masks", ("png",), "mask_suffix")
DEPTHS = Truth("depth map", "depths", ("png", "npy"), "depth_suffix")


def own_pairs(description: Description, data: Path, split: str, truth: Truth) -> list[Pair]:
    """The pairs of a split, the images alone where it has no truth.

    Raises DatasetLayoutError where no image has its truth; says what was looked for and what was found.
    """
    where = description.splits[split]
    if not description.has_truth(split):
        return _images_alone(description, data, split)
    found = (
        list(_listed_pairs(data, where["pairs"], truth))
        if "pairs" in where
        else _paired_folders(description, data, split, truth)
    )
    if not found or len(missing_reasons({pair.key: (pair.image, pair.annotation) for pair in found})) == len(
        found
    ):
        raise DatasetLayoutError(_nothing(description, data, split, found, truth))
    return found


def _nothing(description: Description, data: Path, split: str, found: Sequence[Pair], truth: Truth) -> str:
    where = description.splits[split]
    if "pairs" in where:
        looked = f"the files that {', '.join(where['pairs'])} lists"
        reason = f", such as {found[0].key}" if found else ""
        return (
            f"{data}: split {split} of {description.name}: looked for {looked}, found no image with "
            f"a {truth.kind}{reason}; {contents(data)}; {DESCRIBE}"
        )
    images, truths = ", ".join(where["images"]), ", ".join(where[truth.key])
    counts = [
        sum(not isinstance(getattr(pair, kind), MissingFile) for pair in found)
        for kind in ("image", "annotation")
    ]
    looked = (
        f"{images}/*{description.image_suffix}.jpg (or another image) and "
        f"{truths}/*{truth.suffix(description)}.{truth.endings[0]}"
    )
    unlike = "" if 0 in counts else " of other names"
    folders = [data / folder for folder in (*where["images"], *where[truth.key])]
    absent = next((folder for folder in folders if not folder.is_dir()), data)
    return (
        f"{data}: split {split} of {description.name}: looked for {looked} of equal names, found "
        f"{number_of(counts[0], 'image')} and {number_of(counts[1], truth.kind)}{unlike}; "
        f"{contents(absent)}; {DESCRIBE}"
    )


def _images_alone(description: Description, data: Path, split: str) -> list[Pair]:
    """The images of a split without truth."""
    where = description.splits[split]
    images = _by_key(data, where["images"], IMAGE_ENDINGS, "image", description.image_suffix)
    if "list" in where:
        listed = _listed_keys(data, where["list"], description.image_suffix)
        images = {key: images.get(key, MissingFile("its image is missing")) for key in listed}
    if all(isinstance(image, MissingFile) for image in images.values()):
        shown = next((data / path for path in where["images"] if not (data / path).is_dir()), data)
        raise DatasetLayoutError(
            f"{data}: split {split} of {description.name}: looked for {', '.join(where['images'])}/"
            f"*{description.image_suffix}.jpg (or another image), found none; {contents(shown)}; {DESCRIBE}"
        )
    return [Pair(key, image, NoAnnotation()) for key, image in images.items()]


def _paired_folders(description: Description, data: Path, split: str, truth: Truth) -> list[Pair]:
    where = description.splits[split]
    images, truths, suffix = where["images"], where[truth.key], truth.suffix(description)
    shared = set(images) & set(truths)
    endings = [ending for ending in IMAGE_ENDINGS if not (shared and ending in truth.endings)]
    if shared and suffix:
        endings = list(IMAGE_ENDINGS)
    of_images = _by_key(data, images, endings, "image", description.image_suffix)
    of_truth = _by_key(data, truths, truth.endings, truth.kind, suffix)
    if shared and suffix:  # they lie among the images
        of_images = {key: source for key, source in of_images.items() if not key.endswith(suffix)}
    if "list" in where:
        keys = _listed_keys(data, where["list"], description.image_suffix)
        of_images = {key: source for key, source in of_images.items() if key in keys}
        of_truth = {key: source for key, source in of_truth.items() if key in keys}
        for key in keys - of_images.keys() - of_truth.keys():
            of_images[key] = MissingFile("its image is missing")
    return [Pair(key, *pair) for key, pair in paired(of_images, of_truth, truth.kind).items()]


def _by_key(
    data: Path, folders: Sequence[str], endings: Sequence[str], kind: str, suffix: str
) -> dict[str, ByteSource]:
    """The files of some folders and those below them, by the path from there without suffix and ending."""
    found: dict[str, ByteSource] = {}
    for folder in folders:
        for below, path in folders_below(data / folder):
            for stem, source in sources_by_stem(path, endings, kind).items():
                if not stem.endswith(suffix):
                    continue
                key = (f"{below}/" if below else "") + stem[: len(stem) - len(suffix)]
                if key in found:
                    raise DatasetLayoutError(
                        f"{data}: {kind} {key!r} is in two of the folders {', '.join(folders)}"
                    )
                found[key] = source
    return found


def _listed_keys(data: Path, lists: Sequence[str], suffix: str) -> set[str]:
    """The names in lists: the first word of each line, with or without the ending of a file."""
    keys: set[str] = set()
    for name in lists:
        for line in _lines(data / name):
            stem = re.sub(rf"\.({'|'.join(IMAGE_ENDINGS)})$", "", line.split()[0], flags=re.IGNORECASE)
            keys.add(stem.removesuffix(suffix))
    return keys


def _listed_pairs(data: Path, lists: Sequence[str], truth: Truth) -> Iterator[Pair]:
    """The pairs of lists: a line holds the path of an image and of its truth, with a comma, tab or blank
    between."""
    known: set[str] = set()
    for name in lists:
        for number, line in enumerate(_lines(data / name), start=1):
            parts = [part.strip() for part in re.split(r"[,\t]" if re.search(r"[,\t]", line) else " +", line)]
            if len(parts) != 2 or not all(parts):
                raise DatasetLayoutError(
                    f"{data / name}: line {number}: {line[:120]!r}, expected the paths of an image and its "
                    f"{truth.kind}, with a comma, tab or blank between"
                )
            key = str(PurePosixPath(parts[0]).with_suffix(""))
            if key in known:
                raise DatasetLayoutError(f"{data / name}: line {number}: {key!r} is listed twice")
            known.add(key)
            require_printable(key, data / name)
            yield Pair(key, _file(data, parts[0], "image"), _file(data, parts[1], truth.kind))


def _file(data: Path, path: str, kind: str) -> ByteSource:
    if os.path.isabs(path) or ".." in PurePosixPath(path).parts:
        raise DatasetLayoutError(f"{kind} {path[:200]!r}: expected a path below {data}")
    try:
        return FileSource(data / path, (data / path).stat().st_size)
    except FileNotFoundError:
        return MissingFile(f"its {kind} is missing")


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DatasetLayoutError(f"looked for the list {path}: {contents(path.parent)}; {DESCRIBE}")
    return [line for line in read_lines(path) if line and not line.startswith("#")]
