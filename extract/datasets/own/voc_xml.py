"""Layout `voc-xml`: images with an xml file each, as Pascal VOC and labelImg write them, and lists of names.

Numbers are those of VOC's own tools: pixels count from 1 and a box ends with its last pixel, so that xmin 1
and xmax W are a whole image (detectron2's reading); `first_pixel: 0` is for tools that count from 0. Objects
that are `difficult` are neither trained on nor scored, as VOC's evaluation leaves them out: they are crowds
in COCO's sense. `truncated`, `occluded` and `pose` change nothing there, nor here. Parts are not read.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from extract.datasets.coco_json.ids import image_ids
from extract.datasets.layouts.coco_files import CocoFile, ImageEntry, in_folders
from extract.datasets.layouts.instance_data import MIN_SIDE_PX, InstanceData
from extract.datasets.own.advice import DESCRIBE, contents
from extract.datasets.own.description import Description
from extract.sources.byte_sources import ByteSource, SourceError, image_size, retried
from extract.sources.listing import IMAGE_ENDINGS, MissingFile, is_hidden, number_of, require_printable
from extract.sources.record import READ_THREADS, DatasetLayoutError
from extract.sources.text_lists import read_lines
from extract.views.view import Hw

LIMIT_BYTES = 16 << 20
"""Of an xml file; 16 MiB hold 50,000 objects."""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class NotVoc(ValueError):
    """An xml file that cannot be read as VOC's; one line for people, without paths."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VocImage:
    """What an xml file says of its image."""

    hw: Hw | None
    """Height and width in pixels; None where the file does not say, or says 0."""
    objects: Sequence[Mapping[str, Any]]
    """Each with name, difficult and corners; corners None where they are no numbers."""


def open_voc(description: Description, data: Path, split: str, subset: str | None) -> InstanceData:
    """A split of detection data in VOC's layout; reads every xml file, and of images lengths or headers.

    Raises DatasetLayoutError where the folders, the list or all images are absent.
    """
    where = description.splits[split]
    names = _names(description, data, split)
    find = in_folders([data / folder for folder in where["images"]])
    numbers = {name: number for number, name in description.classes.items()}
    ids, has_truth = image_ids(names), description.has_truth(split)

    def entry(position: int) -> ImageEntry:
        name = names[position]
        image = _image(find, name)
        try:
            if not has_truth:
                listed = position, len(names)
                return ImageEntry(name, ids[position], image_size(image), listed, (), image)
            found = read_voc(_xml_bytes(data, where["annotations"], name))
            hw = found.hw or image_size(image)
        except (NotVoc, SourceError) as error:
            reason = error.reason if isinstance(error, SourceError) else str(error)
            broken = MissingFile(reason)
            return ImageEntry(name, ids[position], _any_hw(image), (position, len(names)), _BROKEN, broken)
        annotations = [
            _annotation(number, each, numbers, description.first_pixel)
            for number, each in enumerate(found.objects, start=1)
        ]
        return ImageEntry(name, ids[position], hw, (position, len(names)), annotations, image)

    with ThreadPoolExecutor(READ_THREADS) as pool:
        entries = list(pool.map(entry, range(len(names))))
    if all(isinstance(each.image, MissingFile) for each in entries):
        raise DatasetLayoutError(_nothing(description, data, split, entries))
    return InstanceData(
        description.name,
        split,
        split in description.training,
        description.classes,
        CocoFile(entries=entries, strangers=Counter()),
        subset,
        has_truth=has_truth,
    )


_BROKEN: Sequence[Mapping[str, Any]] = ({"id": 1},)
"""Annotations of an image whose xml file cannot be read: none that can be used, and so no background."""


def read_voc(data: bytes) -> VocImage:
    """The content of an xml file. Raises NotVoc.

    >>> read_voc(b"<annotation><size><width>4</width><height>3</height></size></annotation>").hw
    (3, 4)
    """
    if len(data) > LIMIT_BYTES:
        raise NotVoc(f"its xml has {len(data)} bytes, at most {LIMIT_BYTES} are read")
    try:
        root = ET.fromstring(data)
    except ET.ParseError as error:
        raise NotVoc(f"its xml cannot be parsed: {str(error)[:120]}") from None
    if root.tag != "annotation":
        raise NotVoc(f"its xml holds <{root.tag[:40]}>, expected <annotation>")
    width, height = (_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    hw = (int(height), int(width)) if height and width and min(height, width) >= 1 else None
    objects = [
        {
            "name": (each.findtext("name") or "").strip(),
            "difficult": (each.findtext("difficult") or "0").strip() == "1",
            "corners": _corners(each),
        }
        for each in root.findall("object")
    ]
    return VocImage(hw=hw, objects=objects)


def _corners(each: ET.Element) -> tuple[float, ...] | None:
    found = [_number(each.findtext(f"bndbox/{corner}")) for corner in _CORNERS]
    return None if None in found else tuple(corner for corner in found if corner is not None)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _annotation(
    number: int, each: Mapping[str, Any], numbers: Mapping[str, int], first_pixel: int
) -> dict[str, Any]:
    """The object as COCO's annotation; one that cannot be used says why when it is parsed."""
    annotation: dict[str, Any] = {
        "id": number,
        "category_id": numbers.get(each["name"], each["name"]),
        "iscrowd": int(each["difficult"]),
    }
    if each["corners"] is not None:
        x1, y1, x2, y2 = each["corners"]
        x1, y1 = x1 - first_pixel, y1 - first_pixel
        if not first_pixel:  # from 0 the last pixel is still part of the box
            x2, y2 = x2 + 1, y2 + 1
        annotation |= {"bbox": [x1, y1, x2 - x1, y2 - y1]}
    return annotation


def _names(description: Description, data: Path, split: str) -> list[str]:
    where = description.splits[split]
    names: list[str] = []
    if "list" in where:
        for path in where["list"]:
            names += listed_names(data / path)
    else:
        endings = ["xml"] if "annotations" in where else IMAGE_ENDINGS
        for folder in where.get("annotations", where["images"]):
            root = data / folder
            every = sorted(root.rglob("*")) if root.is_dir() else []
            files = [path for path in every if path.suffix[1:].lower() in endings]
            names += [
                path.relative_to(root).with_suffix("").as_posix()
                for path in files
                if not is_hidden(path.name)
            ]
    if not names:
        raise DatasetLayoutError(_nothing(description, data, split, ()))
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DatasetLayoutError(f"{data}: split {split} of {description.name}: {twice!r} is listed twice")
    for name in names:
        require_printable(name, data)
    return names


def listed_names(path: Path) -> list[str]:
    """The names in a list of ImageSets: the first word of each line; lines of a class with -1 are left out.

    Raises DatasetLayoutError where there is no such list.
    """
    if not path.is_file():
        raise DatasetLayoutError(f"looked for the list {path}: {contents(path.parent)}; {DESCRIBE}")
    words = [line.split() for line in read_lines(path) if line]
    names = [parts[0] for parts in words if not (len(parts) == 2 and parts[1] == "-1")]
    stems = [_stem(name) for name in names]
    for stem in stems:
        if PurePosixPath(stem).is_absolute() or ".." in PurePosixPath(stem).parts:
            raise DatasetLayoutError(f"{path}: {stem[:120]!r}, expected a name below the folder of images")
    return stems


def _stem(name: str) -> str:
    """Without the ending of an image; a name may have other dots."""
    stem, _, ending = name.rpartition(".")
    return stem if ending.lower() in IMAGE_ENDINGS else name


def _any_hw(image: ByteSource) -> Hw:
    """The size of an image whose record is skipped; of one that cannot be read any that is trained on."""
    try:
        return image_size(image)
    except SourceError:
        return MIN_SIDE_PX, MIN_SIDE_PX


def _image(find: Any, name: str) -> ByteSource:
    for ending in IMAGE_ENDINGS:
        source: ByteSource = find(f"{name}.{ending}")
        if not isinstance(source, MissingFile):
            return source
    return MissingFile("its image is missing")


def _xml_bytes(data: Path, folders: Sequence[str], name: str) -> bytes:
    for folder in folders:
        path = data / folder / f"{name}.xml"
        if path.is_file():
            return retried(path.read_bytes, f"annotation of {name}")
    raise NotVoc("its xml is missing")


def _nothing(description: Description, data: Path, split: str, entries: Sequence[ImageEntry]) -> str:
    where = description.splits[split]
    images, annotations = ", ".join(where["images"]), ", ".join(where.get("annotations", ("no annotations",)))
    named = f" of the names in {', '.join(where['list'])}" if "list" in where else ""
    folders = [data / folder for folder in (*where["images"], *where.get("annotations", ()))]
    absent = next((folder for folder in folders if not folder.is_dir()), folders[0])
    reason = f", such as {entries[0].key}: {entries[0].image.reason}" if entries else ""  # type: ignore[attr-defined]
    return (
        f"{data}: split {split} of {description.name}: looked for {images}/*.jpg (or another image) and "
        f"{annotations}/*.xml{named}, found {number_of(len(entries), 'name')} and no image with an "
        f"annotation{reason}; {contents(absent)}; {DESCRIBE}"
    )
