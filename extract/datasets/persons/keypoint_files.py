"""Annotation files of keypoints in COCO's format, and their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extract.datasets.coco_json.ids import IdReader, shown_id
from extract.datasets.coco_json.instances_file import read_instances_file
from extract.datasets.layouts.coco_files import (
    ImageEntry,
    bounded,
    image_entries,
    image_fields,
    in_folders,
    path_key,
)
from extract.sources.layout_choice import archives_hint
from extract.sources.listing import IMAGE_ENDINGS, MissingFile, holds_any, number_of
from extract.sources.record import DatasetLayoutError

KEYPOINT_FILE = "person_keypoints_{split}.json"
_GET_IT = (
    "get {split}.zip and annotations_trainval2017.zip from the official site, cocodataset.org (direct: "
    "images.cocodataset.org/zips/{split}.zip and "
    "images.cocodataset.org/annotations/annotations_trainval2017.zip), unpack both into one folder "
    "and pass it as DATA"
)


def entries_of_file(
    path: Path, folders: Sequence[Path], categories: Mapping[int, str], keypoints: Sequence[str]
) -> tuple[list[ImageEntry], Counter[str]]:
    """The images of an annotation file with their annotations, and why others have no image.

    Args:
        folders: that hold the images.
        categories: names by id, those whose instances have keypoints.
        keypoints: their names; a file that names none is taken to have these.

    Raises DatasetLayoutError for other categories or keypoints, or where no image is there.
    """
    whole, ids = read_instances_file(path), IdReader()
    _check_categories(path, whole.categories, categories, keypoints, ids)
    images = [image_fields(path, image, ids, in_folders=True) for image in whole.plain_or_entries()]
    by_image, strangers = whole.annotations_by_image({image_id for image_id, _, _ in images}, ids)
    ids.report(path)
    entries = image_entries(images, by_image, path_key, in_folders(folders))
    image_id, count = Counter(entry.image_id for entry in entries).most_common(1)[0]
    if count > 1:
        raise DatasetLayoutError(f"{path}: {image_id} is the id of several images")
    if all(isinstance(entry.image, MissingFile) for entry in entries):
        raise DatasetLayoutError(
            f"{path} lists {number_of(len(entries), 'image')}, such as {images[0][2]}; looked for them in "
            f"{', '.join(map(str, folders))}, found none"
        )
    return bounded(entries), strangers


def _check_categories(
    path: Path,
    found: Sequence[Mapping[str, Any]],
    categories: Mapping[int, str],
    keypoints: Sequence[str],
    ids: IdReader,
) -> None:
    for category in found:
        number, name = ids.whole("id of categories", category.get("id")), category.get("name")
        if number is None or categories.get(number) != str(name).strip():
            expected = ", ".join(f"{each} {words!r}" for each, words in categories.items())
            raise DatasetLayoutError(
                f"{path} has category {shown_id(category.get('id'))} {str(name)[:40]!r}, expected {expected}"
            )
        names = category.get("keypoints")
        if names is not None and list(names) != list(keypoints):
            raise DatasetLayoutError(
                f"{path}: keypoints {str(names)[:200]} of category {name!r}, expected {len(keypoints)}: "
                f"{', '.join(keypoints)}"
            )


def what_is_missing(data: Path, split: str, default_folder: str) -> str:
    """Why a folder is not COCO with keypoints: what was looked for and what was found."""
    roots = (data, data / default_folder)
    name = KEYPOINT_FILE.format(split=split)
    root = next((root for root in roots if (root / "annotations" / name).is_file()), data)
    annotations, images = root / "annotations" / name, root / split
    there = annotations.is_file(), holds_any(images, IMAGE_ENDINGS)
    found = {(True, False): "the first", (False, True): "the second"}.get(there, "neither")
    return (
        f"{data} is not COCO 2017 with keypoints: looked for {annotations} and {images}/*.jpg, found "
        f"{found}; looked for {data / default_folder} too{archives_hint(data)}; {_GET_IT.format(split=split)}"
    )
