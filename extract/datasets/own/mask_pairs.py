"""Layout `masks`: images and label maps in folders of equal names, or in pairs of a list."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from extract.datasets.layouts.label_maps import LabelMaps, Labels, Pair
from extract.datasets.own.advice import DESCRIBE, contents
from extract.datasets.own.description import Description
from extract.sources.byte_sources import (
    BAD_TARGET,
    ByteSource,
    FileSource,
    SourceError,
    decode_label_values,
)
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
from extract.views.view import Hw

MASK_ENDINGS = ("png",)
IGNORE = 255
_SHOWN = 5


def open_masks(description: Description, data: Path, split: str, subset: str | None) -> LabelMaps:
    """A split of own segmentation data.

    Raises DatasetLayoutError where no image has its mask; says what was looked for and what was found.
    """
    return LabelMaps(
        description.name,
        split,
        split in description.training,
        description.class_names,
        _pairs(description, data, split),
        subset,
        partial(decode_mask, classes=description.classes, ignored=description.ignored),
        has_truth=description.has_truth(split),
    )


def decode_mask(
    annotation: bytes, original_hw: Hw, *, classes: Mapping[int, str], ignored: Sequence[int]
) -> Labels:
    """The label map in a mask: uint8 (H, W), labels in the order of `classes`, 255 = ignore.

    Args:
        annotation: a PNG in gray of 1 to 16 bits, or with a palette.
        original_hw: height and width of its image.
        classes: by value in the file.
        ignored: values that are no class.

    Raises SourceError for another file, another size, or a value that is neither.

    >>> import io; from PIL import Image
    >>> file = io.BytesIO(); Image.fromarray(np.array([[7, 8, 255]], np.uint8)).save(file, "PNG")
    >>> decode_mask(file.getvalue(), (1, 3), classes={7: "road", 8: "sky"}, ignored=[255]).tolist()
    [[0, 1, 255]]
    """
    try:
        values = decode_label_values(annotation)
    except SourceError as error:
        raise SourceError(BAD_TARGET, f"mask: {error.reason}") from None
    if values.shape != original_hw:
        (h, w), (image_h, image_w) = values.shape, original_hw
        raise SourceError(BAD_TARGET, f"mask of {w}x{h} pixels, its image has {image_w}x{image_h}")
    label_of = np.full(1 << 16, IGNORE, np.uint8)
    known = np.zeros(1 << 16, np.bool_)
    for label, value in enumerate(classes):
        label_of[value], known[value] = label, True
    known[[value for value in ignored if value < 1 << 16]] = True
    if not known[values].all():
        strange = int(values[~known[values]][0])
        raise SourceError(
            BAD_TARGET,
            f"mask holds {strange}, which is none of the {len(classes)} classes ({_ranges(list(classes))}) "
            f"and not ignored ({_ranges(ignored)})",
        )
    return label_of[values]


def _ranges(values: Sequence[int]) -> str:
    """
    >>> _ranges([0, 1, 2, 5, 255]), _ranges([])
    ('0 to 2, 5, 255', 'none')
    """
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], value]
        else:
            parts.append([value])
    return ", ".join(" to ".join(map(str, part)) for part in parts) or "none"


def _pairs(description: Description, data: Path, split: str) -> list[Pair]:
    where = description.splits[split]
    if not description.has_truth(split):
        return _images_alone(description, data, split)
    found = (
        list(_listed_pairs(data, where["pairs"]))
        if "pairs" in where
        else _paired_folders(description, data, split)
    )
    if not found or len(missing_reasons({pair.key: (pair.image, pair.annotation) for pair in found})) == len(
        found
    ):
        raise DatasetLayoutError(_nothing(description, data, split, found))
    return found


def _nothing(description: Description, data: Path, split: str, found: Sequence[Pair]) -> str:
    where = description.splits[split]
    if "pairs" in where:
        looked = f"the files that {', '.join(where['pairs'])} lists"
        reason = f", such as {found[0].key}" if found else ""
        return (
            f"{data}: split {split} of {description.name}: looked for {looked}, found no image with "
            f"a mask{reason}; {contents(data)}; {DESCRIBE}"
        )
    images, masks = ", ".join(where["images"]), ", ".join(where["masks"])
    counts = [
        sum(not isinstance(getattr(pair, kind), MissingFile) for pair in found)
        for kind in ("image", "annotation")
    ]
    looked = (
        f"{images}/*{description.image_suffix}.jpg (or another image) and "
        f"{masks}/*{description.mask_suffix}.png"
    )
    unlike = "" if 0 in counts else " of other names"
    folders = [data / folder for folder in (*where["images"], *where["masks"])]
    absent = next((folder for folder in folders if not folder.is_dir()), data)
    return (
        f"{data}: split {split} of {description.name}: looked for {looked} of equal names, found "
        f"{number_of(counts[0], 'image')} and {number_of(counts[1], 'mask')}{unlike}; {contents(absent)}; "
        f"{DESCRIBE}"
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


def _paired_folders(description: Description, data: Path, split: str) -> list[Pair]:
    where = description.splits[split]
    images, masks = where["images"], where["masks"]
    shared = set(images) & set(masks)
    endings = [ending for ending in IMAGE_ENDINGS if not (shared and ending in MASK_ENDINGS)]
    if shared and description.mask_suffix:
        endings = list(IMAGE_ENDINGS)
    of_images = _by_key(data, images, endings, "image", description.image_suffix)
    of_masks = _by_key(data, masks, MASK_ENDINGS, "mask", description.mask_suffix)
    if shared and description.mask_suffix:  # masks lie among the images
        of_images = {
            key: source for key, source in of_images.items() if not key.endswith(description.mask_suffix)
        }
    if "list" in where:
        keys = _listed_keys(data, where["list"], description.image_suffix)
        of_images = {key: source for key, source in of_images.items() if key in keys}
        of_masks = {key: source for key, source in of_masks.items() if key in keys}
        for key in keys - of_images.keys() - of_masks.keys():
            of_images[key] = MissingFile("its image is missing")
    return [Pair(key, *pair) for key, pair in paired(of_images, of_masks, "mask").items()]


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


def _listed_pairs(data: Path, lists: Sequence[str]) -> Iterator[Pair]:
    """The pairs of lists: a line holds the path of an image and of its mask, with a comma, tab or blank
    between."""
    known: set[str] = set()
    for name in lists:
        for number, line in enumerate(_lines(data / name), start=1):
            parts = [part.strip() for part in re.split(r"[,\t]" if re.search(r"[,\t]", line) else " +", line)]
            if len(parts) != 2 or not all(parts):
                raise DatasetLayoutError(
                    f"{data / name}: line {number}: {line[:120]!r}, expected the paths of an image and its "
                    "mask, with a comma, tab or blank between"
                )
            key = str(PurePosixPath(parts[0]).with_suffix(""))
            if key in known:
                raise DatasetLayoutError(f"{data / name}: line {number}: {key!r} is listed twice")
            known.add(key)
            require_printable(key, data / name)
            yield Pair(key, _file(data, parts[0], "image"), _file(data, parts[1], "mask"))


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
