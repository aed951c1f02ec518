"""The files of COCO: an annotation file and a folder of images, or tars of `key.jpg` and `key.json`.

Only what is needed is kept of them: of each image its key, size and annotations as they stand in the file.
"""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from extract.sources.byte_sources import LIMIT_PX, ByteSource, FileSource, SourceError, retried
from extract.sources.record import READ_THREADS, DatasetLayoutError
from extract.sources.tar_samples import tar_samples
from extract.views.view import Hw
from stores.format.row_table import UNDECODABLE

logger = logging.getLogger(__name__)

_GET_IT = (
    "get {split}.zip and annotations_trainval2017.zip from the official site, cocodataset.org (direct: "
    "images.cocodataset.org/zips/{split}.zip and "
    "images.cocodataset.org/annotations/annotations_trainval2017.zip), unpack both into one folder "
    "and pass it as DATA"
)
_IMAGE_ENDINGS = ("jpg", "jpeg", "png")
_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class MissingImage:
    """The place of an image that is not there; a ByteSource whose record is skipped, with this reason."""

    file_name: str
    size: int = 0

    def read(self, limit: int | None = None) -> bytes:
        raise SourceError(UNDECODABLE, f"its image {self.file_name[:200]} is missing")


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image as its annotation file lists it."""

    key: str
    """The stem of its file name, such as 000000000139."""
    image_id: int
    hw: Hw
    """Height and width in pixels, as annotated."""
    listed: tuple[int, int]
    """Its position in the file's list of images, and the length of the list."""
    annotations: Sequence[Mapping[str, Any]]
    image: ByteSource


def from_folder(
    data: Path, split: str, default_folder: str, categories: Mapping[int, str]
) -> list[ImageEntry]:
    """The images of a split in the official layout.

    Raises:
        DatasetLayoutError: the folder does not hold it, or its file lists other categories.
        OSError: it could not be read.
    """
    name = f"instances_{split}.json"
    root = next((r for r in (data, data / default_folder) if (r / "annotations" / name).is_file()), data)
    annotations, images = root / "annotations" / name, root / split
    get_it = _GET_IT.format(split=split)
    if not annotations.is_file() or not images.is_dir():
        there = annotations.is_file(), images.is_dir()
        found = {(True, False): "the first", (False, True): "the second"}.get(there, "neither")
        raise DatasetLayoutError(
            f"{data} is not COCO 2017: looked for {annotations} and {images}/*.jpg, found {found}; looked "
            f"for {data / default_folder} and for tars too; {get_it}"
        )
    whole = _read_json(annotations)
    _check_categories(annotations, whole, categories)
    by_image = _by_image(annotations, whole)
    sizes = _sizes(images)
    listed = whole["images"]
    entries = []
    for position, image in enumerate(listed):
        image_id, hw, file_name = _image_fields(annotations, image)
        path = images / file_name
        source = FileSource(path, sizes[file_name]) if file_name in sizes else MissingImage(file_name)
        key = PurePosixPath(file_name).stem
        entries.append(
            ImageEntry(key, image_id, hw, (position, len(listed)), by_image.get(image_id, ()), source)
        )
    missing = [entry for entry in entries if isinstance(entry.image, MissingImage)]
    if len(missing) == len(entries):
        raise DatasetLayoutError(
            f"{images} holds none of the {len(entries)} images that {annotations} lists; {get_it}"
        )
    if missing:
        logger.warning(
            "%s lacks %d of %d images, such as %s.jpg", images, len(missing), len(entries), missing[0].key
        )
    return entries


def from_tars(tars: Sequence[Path]) -> list[ImageEntry]:
    """The images of tars of `key.jpg` and `key.json`: {"image": ..., "annotations": [...]}, both as in
    COCO's file.

    An image may say where the official file lists it, as "listed": [position, count], for the folds of
    `stores.subsets`; else its place among the sorted keys is taken.

    Raises DatasetLayoutError for another layout, HostileTarError as `tar_samples`.
    """
    samples = sorted(tar_samples(tars).items())
    for key, members in samples:
        if "json" not in members or sum(ending in members for ending in _IMAGE_ENDINGS) != 1:
            raise DatasetLayoutError(
                f"{tars[0].parent}: sample {key!r} has {', '.join(sorted(members))}; looked for one image "
                "(.jpg) and its annotations (.json) of each sample"
            )

    def entry(position: int) -> ImageEntry:
        key, members = samples[position]
        where = Path(f"{members['json'].tar}:{key}.json")
        whole = _parsed(where, retried(lambda: members["json"].read(), str(where)))
        if not isinstance(whole.get("image"), dict) or not isinstance(whole.get("annotations"), list):
            raise DatasetLayoutError(f'{where}: expected {{"image": ..., "annotations": [...]}}')
        image_id, hw, _ = _image_fields(where, {"file_name": f"{key}.jpg", **whole["image"]})
        listed = whole["image"].get("listed", [position, len(samples)])
        if not isinstance(listed, list) or len(listed) != 2 or not all(type(part) is int for part in listed):
            raise DatasetLayoutError(f"{where}: listed {str(listed)[:80]}, expected [position, count]")
        image = next(members[ending] for ending in _IMAGE_ENDINGS if ending in members)
        annotations = _objects(where, whole["annotations"], "annotations")
        return ImageEntry(key, image_id, hw, (listed[0], listed[1]), annotations, image)

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return list(pool.map(entry, range(len(samples))))


def _read_json(path: Path) -> dict[str, Any]:
    whole = _parsed(path, retried(path.read_bytes, str(path)))
    for name in ("images", "annotations", "categories"):
        _objects(path, whole.get(name), name)
    if not whole["images"]:
        raise DatasetLayoutError(f"{path} lists no images")
    return whole


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        whole = json.loads(
            data, parse_constant=lambda _: None
        )  # NaN and Infinity: their instance is unusable
    except (ValueError, RecursionError) as error:
        raise DatasetLayoutError(f"{path} is no JSON: {type(error).__name__}: {str(error)[:160]}") from None
    if not isinstance(whole, dict):
        raise DatasetLayoutError(f"{path} holds a {type(whole).__name__}, expected a JSON object")
    return whole


def _objects(path: Path, value: Any, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DatasetLayoutError(f"{path}: {name} is not a list of objects, as in COCO's instances_*.json")
    return value


def _check_categories(path: Path, whole: Mapping[str, Any], categories: Mapping[int, str]) -> None:
    for category in whole["categories"]:
        number, name = category.get("id"), category.get("name")
        if type(number) is not int or number not in categories or categories[number] != name:
            raise DatasetLayoutError(
                f"{path} has category {str(number)[:40]} {str(name)[:40]!r}, which is none of COCO's "
                f"{len(categories)} categories: this data set is COCO 2017 alone"
            )


def _by_image(path: Path, whole: Mapping[str, Any]) -> Mapping[int, list[Mapping[str, Any]]]:
    known = {image.get("id") for image in whole["images"] if type(image.get("id")) is int}
    found: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    strangers = 0
    for annotation in whole["annotations"]:
        image_id = annotation.get("image_id")
        if type(image_id) is int and image_id in known:
            found[image_id].append(annotation)
        else:
            strangers += 1
    if strangers:
        logger.warning("%s has %d annotations of images that it does not list", path, strangers)
    return found


def _image_fields(path: Path, image: Mapping[str, Any]) -> tuple[int, Hw, str]:
    number, file_name = image.get("id"), image.get("file_name")
    if type(number) is not int or not isinstance(file_name, str):
        raise DatasetLayoutError(f"{path}: image {str(image)[:120]} has no id or no file_name")
    if (
        not 0 < len(file_name) < _LONGEST_NAME
        or PurePosixPath(file_name).name != file_name
        or "\0" in file_name
    ):
        raise DatasetLayoutError(f"{path}: file_name {file_name[:120]!r}, expected a name without folders")
    height, width = image.get("height"), image.get("width")
    if type(height) is int and type(width) is int and min(height, width) > 0 and height * width <= LIMIT_PX:
        return number, (height, width), file_name
    raise DatasetLayoutError(
        f"{path}: image {number} of {str(width)[:20]}x{str(height)[:20]} pixels, expected 1 to {LIMIT_PX}"
    )


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of the files in a folder by name."""
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
