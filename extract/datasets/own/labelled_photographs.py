"""Layouts of classification: class folders, lists, iNaturalist's json, and tars of samples."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from extract.datasets.coco_json.ids import IdReader, shown_id
from extract.datasets.coco_json.instances_file import read_instances_file
from extract.datasets.layouts.coco_files import in_folders
from extract.datasets.layouts.labelled_images import (
    LabelledImage,
    LabelledImages,
    images_of_tars,
    numbered_labels,
)
from extract.datasets.own.advice import DESCRIBE, contents
from extract.datasets.own.description import Description
from extract.sources.byte_sources import ByteSource
from extract.sources.listing import (
    IMAGE_ENDINGS,
    MissingFile,
    folders_below,
    is_hidden,
    number_of,
    require_printable,
    sources_by_stem,
)
from extract.sources.record import DatasetLayoutError
from extract.sources.tar_samples import find_tars
from extract.sources.text_lists import clean, read_lines

logger = logging.getLogger(__name__)

_HEADER_WORDS = ("path", "paths", "file", "filename", "file_name", "image", "images", "name")
"""First fields of a csv's header."""


def open_folders(description: Description, data: Path, split: str, subset: str | None) -> LabelledImages:
    """A split of class folders, or of lists of files. Raises DatasetLayoutError, which says what was looked
    for and what was found."""
    where = description.splits[split]
    if "list" in where:
        images = list(_listed(data, where["list"], where.get("images", (".",))))
        looked = f"the images that {', '.join(where['list'])} lists"
    else:
        images = list(_in_class_folders(description, data, split))
        looked = f"{', '.join(where['images'])}/<class>/*.jpg (or another image)"
    return _opened(description, data, split, subset, images, looked)


def open_tars(description: Description, data: Path, split: str, subset: str | None) -> LabelledImages:
    """A split of tars as webdataset lays them out, with `.cls` labels. Raises as `open_folders`."""
    paths = description.splits[split]["tars"]
    tars = [tar for path in paths for tar in find_tars(str(data / path), split)]
    looked = f"tars of samples (key.jpg, key.cls) in {', '.join(paths)}"
    return _opened(description, data, split, subset, list(images_of_tars(tars)) if tars else [], looked)


def open_json(description: Description, data: Path, split: str, subset: str | None) -> LabelledImages:
    """A split whose json lists images, and annotations of a category each. Raises as `open_folders`."""
    where = description.splits[split]
    images: list[LabelledImage] = []
    for name in where["annotations"]:
        path = data / name
        if not path.is_file():
            raise _nothing(description, data, split, f"the annotations {path}", path.parent)
        images += _of_json(path, [data / folder for folder in where["images"]], description)
    looked = f"the images that {', '.join(where['annotations'])} lists, in {', '.join(where['images'])}"
    return _opened(description, data, split, subset, images, looked)


def _opened(
    description: Description,
    data: Path,
    split: str,
    subset: str | None,
    images: Sequence[LabelledImage],
    looked: str,
) -> LabelledImages:
    if all(isinstance(image.image, MissingFile) for image in images):
        reason = f", such as {images[0].key}" if images else ""
        raise _nothing(description, data, split, looked + reason, data)
    names = description.class_names
    number_of_label = (
        {str(number): place for place, number in enumerate(description.class_numbers)}
        if description.layout == "inat-json"
        else numbered_labels(names, [description.labels])
    )
    return LabelledImages(
        description.name, split, split in description.training, names, images, number_of_label, subset
    )


def _nothing(
    description: Description, data: Path, split: str, looked: str, shown: Path
) -> DatasetLayoutError:
    where = next(
        (
            data / path
            for paths in description.splits[split].values()
            for path in paths
            if not (data / path).exists() and "{" not in path
        ),
        shown,
    )
    return DatasetLayoutError(
        f"{data}: split {split} of {description.name}: looked for {looked}, found none; {contents(where)}; "
        f"{DESCRIBE}"
    )


def class_folders(folder: Path) -> list[Path]:
    """The folders directly in a folder, hidden ones left out, by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def images_below(folder: Path) -> Iterator[tuple[str, ByteSource]]:
    """Every image in a folder and those below it, with its path from there without its ending."""
    for below, path in folders_below(folder):
        for stem, source in sources_by_stem(path, IMAGE_ENDINGS, "image").items():
            yield (f"{below}/" if below else "") + stem, source


def _in_class_folders(description: Description, data: Path, split: str) -> Iterator[LabelledImage]:
    known: dict[str, str] = {}
    for root in description.splits[split]["images"]:
        for folder in class_folders(data / root):
            if folder.name in description.leave_out:
                continue
            for stem, source in images_below(folder):
                if folder.name not in description.labels:
                    raise DatasetLayoutError(
                        f"{folder} holds images and is none of the {len(description.labels)} `classes` of "
                        f"{description.name}: add it there, or to `leave_out`; {DESCRIBE}"
                    )
                key = f"{folder.name}/{stem}"
                if known.setdefault(key, root) != root:
                    raise DatasetLayoutError(
                        f"{data}: image {key!r} is in two folders, {known[key]} and {root}"
                    )
                yield LabelledImage(key, source, folder.name)
        loose = sources_by_stem(data / root, IMAGE_ENDINGS, "image")
        if loose:
            logger.warning(
                "%s: %s beside the class folders, such as %s: left out",
                *(data / root, number_of(len(loose), "image"), next(iter(loose))),
            )


def _listed(data: Path, lists: Sequence[str], folders: Sequence[str]) -> Iterator[LabelledImage]:
    """The images of lists: a line holds a path and a label, with a comma, tab or blank between; without a
    label it is the first folder of the path."""
    find, known = in_folders([data / folder for folder in folders]), set[str]()
    for name in lists:
        path = data / name
        if not path.is_file():
            raise DatasetLayoutError(f"looked for the list {path}: {contents(path.parent)}; {DESCRIBE}")
        for number, line in enumerate(read_lines(path), start=1):
            if not line or line.startswith("#"):
                continue
            file_name, label = split_line(line)
            if number == 1 and clean(file_name).lower() in _HEADER_WORDS:
                continue
            _require_below(path, number, file_name)
            source = _with_any_ending(find, file_name)
            label = label or PurePosixPath(file_name).parts[0]
            key = re.sub(rf"\.({'|'.join(IMAGE_ENDINGS)})$", "", file_name, flags=re.IGNORECASE)
            if key in known:
                raise DatasetLayoutError(f"{path}: line {number}: {key!r} is listed twice")
            known.add(key)
            yield LabelledImage(key, source, label)


def split_line(line: str) -> tuple[str, str]:
    """The path and the label of a line of a list; no label where the line is a path alone.

    >>> split_line("a b/1.jpg 7"), split_line("a/1.jpg,red fox"), split_line("apple_pie/1005649")
    (('a b/1.jpg', '7'), ('a/1.jpg', 'red fox'), ('apple_pie/1005649', ''))
    """
    for mark in (",", "\t"):
        if mark in line:
            path, label, *_ = line.split(mark)
            return path.strip().strip('"'), clean(label.strip().strip('"'))
    path, blank, label = line.rpartition(" ")
    if not blank or "/" in label or label.rpartition(".")[2].lower() in IMAGE_ENDINGS:
        return line, ""
    return path.strip(), label


def _with_any_ending(find: Any, file_name: str) -> ByteSource:
    source: ByteSource = find(file_name)
    if not isinstance(source, MissingFile) or PurePosixPath(file_name).suffix[1:].lower() in IMAGE_ENDINGS:
        return source
    others = (find(f"{file_name}.{ending}") for ending in IMAGE_ENDINGS)
    return next((other for other in others if not isinstance(other, MissingFile)), source)


def _require_below(path: Path, number: int, file_name: str) -> None:
    if (
        os.path.isabs(file_name)
        or ".." in PurePosixPath(file_name).parts
        or not PurePosixPath(file_name).name
    ):
        raise DatasetLayoutError(
            f"{path}: line {number}: {file_name[:120]!r}, expected a path below the folder of the images"
        )
    require_printable(file_name, path)


def _of_json(path: Path, folders: Sequence[Path], description: Description) -> Iterator[LabelledImage]:
    whole, ids = read_instances_file(path), IdReader()
    label_of: dict[int, int] = {}
    for annotation in whole.annotation_entries():
        entry = ids.read(annotation)
        image, category = entry.get("image_id"), entry.get("category_id")
        if type(image) is not int or type(category) is not int:
            raise DatasetLayoutError(
                f"{path}: an annotation of image {shown_id(image)} and category {shown_id(category)}, "
                "expected whole numbers"
            )
        if label_of.setdefault(image, category) != category:
            raise DatasetLayoutError(
                f"{path}: image {image} has the categories {label_of[image]} and {category}, expected one; "
                f"for boxes take the layout coco-json; {DESCRIBE}"
            )
        if category not in description.classes:
            raise DatasetLayoutError(
                f"{path} has category {category}, the description no such id: `classes` holds the ids and "
                f"names of the file; {DESCRIBE}"
            )
    find, known = in_folders(folders), set[str]()
    for entry in whole.image_entries():
        number, file_name = ids.whole("id of images", entry.get("id")), entry.get("file_name")
        if number is None or not isinstance(file_name, str):
            raise DatasetLayoutError(f"{path}: image {str(entry)[:120]} lacks its id or its file_name")
        file_name = file_name.replace("\\", "/").removeprefix("./")
        _require_below(path, number, file_name)
        key = str(PurePosixPath(file_name).with_suffix(""))
        if key in known:
            raise DatasetLayoutError(f"{path}: {key!r} is listed twice")
        known.add(key)
        yield LabelledImage(key, find(file_name), str(label_of.get(number, "")))
    ids.report(path)
