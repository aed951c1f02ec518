"""Layout `coco-json`: any instances file in COCO's format, with own categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extract.datasets.coco_json.ids import IdReader, image_ids, shown_id
from extract.datasets.coco_json.instances_file import read_instances_file
from extract.datasets.layouts.coco_files import (
    CocoFile,
    ImageEntry,
    bounded,
    image_entries,
    image_fields,
    in_folders,
    path_key,
)
from extract.datasets.layouts.instance_data import InstanceData
from extract.datasets.layouts.stuff_maps import pixel_maps
from extract.datasets.own.advice import DESCRIBE, contents
from extract.datasets.own.description import Description
from extract.datasets.persons.box_file import BoxFile
from extract.datasets.persons.keypoint_files import entries_of_file
from extract.datasets.persons.person_data import PersonData
from extract.sources.byte_sources import ByteSource, SourceError, image_size
from extract.sources.listing import (
    IMAGE_ENDINGS,
    MissingFile,
    folders_below,
    number_of,
    sources_by_stem,
)
from extract.sources.record import DatasetLayoutError
from extract.views.view import Hw


def open_persons(
    description: Description, data: Path, split: str, subset: str | None, boxes: BoxFile | None = None
) -> PersonData:
    """A split of own data with keypoints; reads its annotations, and of the images only their lengths.

    Args: boxes: those that rows of a test split are of; None: the annotated ones.

    Raises DatasetLayoutError where the file or all images are absent, or categories or keypoints are others.
    """
    assert description.keypoints is not None, "opened by its task"
    where = description.splits[split]
    if not description.has_truth(split):
        raise DatasetLayoutError(
            f"splits.{split} of {description.name}: has no annotations; `predict --boxes` finds poses in "
            "images without"
        )
    entries, strangers = entries_of_file(
        _annotation_file(description, data, split),
        [data / folder for folder in where["images"]],
        description.classes,
        description.keypoints.names,
    )
    return PersonData(
        *(description.name, split, split in description.training, description.keypoints),
        *(description.class_numbers, entries, subset, boxes),
        strangers=strangers,
    )


def open_instances(description: Description, data: Path, split: str, subset: str | None) -> InstanceData:
    """A split of own detection data; reads its annotations, and of the images only their lengths.

    Raises DatasetLayoutError where the file or all images are absent, or categories are others.
    """
    where = description.splits[split]
    if not description.has_truth(split):
        return _images_alone(description, data, split, subset)
    path = _annotation_file(description, data, split)
    listed = _listed(path, [data / folder for folder in where["images"]], description.classes)
    return InstanceData(
        description.name,
        split,
        split in description.training,
        description.classes,
        listed,
        subset,
        pixel_maps([data / folder for folder in where["stuff"]], DESCRIBE)
        if "stuff" in where and split in description.training
        else None,
    )


def _annotation_file(description: Description, data: Path, split: str) -> Path:
    files = description.splits[split]["annotations"]
    if len(files) > 1:
        raise DatasetLayoutError(
            f"splits.{split}.annotations of {description.name}: {len(files)} files, expected one; make a "
            "split of each"
        )
    path = data / files[0]
    if not path.is_file():
        raise DatasetLayoutError(
            f"{data}: split {split} of {description.name}: looked for the annotations {path}, found no such "
            f"file; {contents(path.parent)}; {DESCRIBE}"
        )
    return path


def _images_alone(description: Description, data: Path, split: str, subset: str | None) -> InstanceData:
    """The images of a test split without truth; their ids are their names where these are numbers."""
    folders = [data / folder for folder in description.splits[split]["images"]]
    found = sorted(
        (f"{below}/{stem}" if below else stem, source)
        for folder in folders
        for below, path in folders_below(folder)
        for stem, source in sources_by_stem(path, IMAGE_ENDINGS, "image").items()
    )
    if not found:
        raise DatasetLayoutError(
            f"{data}: split {split} of {description.name}: looked for images in "
            f"{', '.join(map(str, folders))}, found none; {contents(folders[0])}; {DESCRIBE}"
        )
    ids = image_ids([key for key, _ in found])
    entries = [
        ImageEntry(key, ids[place], _any_hw(source), (place, len(found)), (), source)
        for place, (key, source) in enumerate(found)
    ]
    listed = CocoFile(entries=entries, strangers=Counter())
    return InstanceData(description.name, split, False, description.classes, listed, subset, has_truth=False)


def _any_hw(image: ByteSource) -> Hw:
    try:
        return image_size(image)
    except SourceError:  # the record is skipped, with this reason, when it is decoded
        return 1, 1


def _listed(path: Path, folders: Sequence[Path], categories: Mapping[int, str]) -> CocoFile:
    whole, ids = read_instances_file(path), IdReader()
    _check_categories(path, whole.categories, categories, ids)
    images = [image_fields(path, image, ids, in_folders=True) for image in whole.plain_or_entries()]
    by_image, strangers = whole.annotations_by_image({image_id for image_id, _, _ in images}, ids)
    ids.report(path)
    entries = image_entries(images, by_image, path_key, in_folders(folders))
    if all(isinstance(entry.image, MissingFile) for entry in entries):
        shown = ", ".join(map(str, folders))
        raise DatasetLayoutError(
            f"{path} lists {number_of(len(entries), 'image')}, such as {images[0][2]}; looked for them in "
            f"{shown}, found none; {contents(folders[0])}; {DESCRIBE}"
        )
    return CocoFile(entries=bounded(entries), strangers=strangers, path=path)


def _check_categories(
    path: Path, found: Sequence[Mapping[str, Any]], categories: Mapping[int, str], ids: IdReader
) -> None:
    for category in found:
        number, name = ids.whole("id of categories", category.get("id")), category.get("name")
        described = None if number is None else categories.get(number)
        if described is None or described != str(name).strip():
            raise DatasetLayoutError(
                f"{path} has category {shown_id(category.get('id'))} {str(name)[:40]!r}, the description "
                f"{'no such id' if described is None else repr(described)}: `classes` holds the ids and "
                f"names of the file; {DESCRIBE}"
            )
