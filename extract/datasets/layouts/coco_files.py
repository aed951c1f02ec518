"""The files of COCO: an annotation file and a folder of images, or tars of `key.jpg` and `key.json`.

Only what is needed is kept of them: of each image its key, size and annotations as they stand in the file.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from extract.datasets.coco_json.ids import IdReader, shown_id
from extract.datasets.coco_json.instances_file import (
    PlainImage,
    objects,
    parsed_file,
    read_instances_file,
)
from extract.sources.byte_sources import LIMIT_PX, ByteSource, FileSource, retried
from extract.sources.layout_choice import archives_hint
from extract.sources.listing import (
    IMAGE_ENDINGS,
    FolderFiles,
    MissingFile,
    folder_files,
    holds_any,
    number_of,
    require_printable,
)
from extract.sources.record import READ_THREADS, DatasetLayoutError
from extract.sources.tar_samples import tar_samples
from extract.views.view import Hw

logger = logging.getLogger(__name__)

_GET_IT = (
    "get {split}.zip and annotations_trainval2017.zip from the official site, cocodataset.org (direct: "
    "images.cocodataset.org/zips/{split}.zip and "
    "images.cocodataset.org/annotations/annotations_trainval2017.zip), unpack both into one folder "
    "and pass it as DATA; of the test splits test2017.zip and image_info_test2017.zip"
)
_LONGEST_NAME = 256
MOST_ANNOTATIONS = 1 << 16
"""Of one image: they are held in memory together. Of COCO it is 93, of LVIS 294, of aerial images some
thousands."""
SPLITS_WITHOUT_TRUTH = ("test-dev2017", "test2017")
"""Whose annotations are not published."""


def official_paths(root: Path, split: str) -> tuple[Path, Path]:
    """The list of a split's images in the official layout, and the folder of the images.

    >>> [path.as_posix() for path in official_paths(Path("coco"), "test-dev2017")]
    ['coco/annotations/image_info_test-dev2017.json', 'coco/test2017']
    """
    if split in SPLITS_WITHOUT_TRUTH:
        return root / "annotations" / f"image_info_{split}.json", root / "test2017"
    return root / "annotations" / f"instances_{split}.json", root / split


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


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoFile:
    """What an annotation file, or the tars of a split, list."""

    entries: Sequence[ImageEntry]
    strangers: Counter[str]
    """Annotations of no listed image, by what is wrong with them."""
    path: Path | None = None
    """The one file that holds all annotations; None for several files, or none."""


def is_official(root: Path, split: str) -> bool:
    """Whether a folder holds a split in the official layout."""
    annotations, images = official_paths(root, split)
    return annotations.is_file() and holds_any(images, IMAGE_ENDINGS)


def from_folder(root: Path, split: str, categories: Mapping[int, str]) -> CocoFile:
    """The images of a split in the official layout.

    Raises:
        DatasetLayoutError: the annotation file is no such file, or lists other categories, or no image is
        there.
        OSError: it could not be read.
    """
    annotations, images = official_paths(root, split)
    whole, ids = read_instances_file(annotations, split not in SPLITS_WITHOUT_TRUTH), IdReader()
    _check_categories(annotations, whole.categories, categories, ids)
    listed = [image_fields(annotations, image, ids) for image in whole.plain_or_entries()]
    by_image, strangers = whole.annotations_by_image({image_id for image_id, _, _ in listed}, ids)
    ids.report(annotations)
    files = folder_files(images)
    entries = image_entries(listed, by_image, stem, image_finder(images, files))
    missing = [entry for entry in entries if isinstance(entry.image, MissingFile)]
    if len(missing) == len(entries):
        raise DatasetLayoutError(
            f"{images} holds none of the {len(entries)} images that {annotations} lists, such as "
            f"{listed[0][2]}; {_GET_IT.format(split=split)}"
        )
    if missing:
        logger.warning(
            "%s lacks %d of %d images, such as %s", images, len(missing), len(entries), missing[0].key
        )
    _report_unlisted(images, files, {file_name for _, _, file_name in listed}, annotations)
    return CocoFile(entries=bounded(entries), strangers=strangers, path=annotations)


def image_entries(
    images: Sequence[tuple[int, Hw, str]],
    by_image: Mapping[int, Sequence[Any]],
    key: Callable[[str], str],
    find: Callable[[str], ByteSource],
) -> list[ImageEntry]:
    """The images that a file lists, in its order, with their annotations.

    Args:
        images: id, size and file name of each, as `image_fields` reads them.
        by_image: annotations by image id; an image without one has none.
        key, find: record key and source of a file name.
    """
    return [
        ImageEntry(
            key(file_name), image_id, hw, (position, len(images)), by_image.get(image_id, ()), find(file_name)
        )
        for position, (image_id, hw, file_name) in enumerate(images)
    ]


def bounded(entries: Sequence[ImageEntry]) -> list[ImageEntry]:
    """The entries; those of more than MOST_ANNOTATIONS are skipped by name, and no such list is read."""
    return [
        entry
        if len(entry.annotations) <= MOST_ANNOTATIONS
        else replace(
            entry,
            annotations=[entry.annotations[0]],
            image=MissingFile(f"{len(entry.annotations)} annotations, at most {MOST_ANNOTATIONS} are read"),
        )
        for entry in entries
    ]


def path_key(file_name: str) -> str:
    """The record key of an image of own data: its path below the folder, without its ending.

    >>> path_key("day/one.final.jpg")
    'day/one.final'
    """
    return str(PurePosixPath(file_name).with_suffix(""))


def stem(file_name: str) -> str:
    """As `pathlib` has it, in a tenth of its time.

    >>> stem("000000000139.jpg"), stem("a.b.png"), stem(".jpg"), stem("a.")
    ('000000000139', 'a.b', '.jpg', 'a.')
    """
    dot = file_name.rfind(".")
    return file_name[:dot] if 0 < dot < len(file_name) - 1 else file_name


def what_is_missing(data: Path, split: str, default_folder: str) -> str:
    """Why a folder is not COCO: what was looked for and what was found."""
    roots = (data, data / default_folder)
    root = next((root for root in roots if official_paths(root, split)[0].is_file()), data)
    annotations, images = official_paths(root, split)
    there = annotations.is_file(), holds_any(images, IMAGE_ENDINGS)
    found = {(True, False): "the first", (False, True): "the second"}.get(there, "neither")
    return (
        f"{data} is not COCO 2017: looked for {annotations} and {images}/*.jpg, found {found}; looked for "
        f"{data / default_folder} and for tars too{archives_hint(data)}; {_GET_IT.format(split=split)}"
    )


def image_finder(folder: Path, files: FolderFiles) -> Callable[[str], ByteSource]:
    """Finds images by the names that the annotation file has; the case of endings does not matter.

    Args: files: of the folder.
    """
    in_any_case = cache(lambda: {_any_case(name): name for name in files.sizes})

    def find(file_name: str) -> ByteSource:
        name = file_name if file_name in files.sizes else in_any_case().get(_any_case(file_name))
        if name is not None:
            return FileSource(f"{folder}/{name}", files.sizes[name])
        if file_name in files.dangling:
            return MissingFile(f"its image {file_name[:200]} is a link to nothing")
        return MissingFile(f"its image {file_name[:200]} is missing")

    return find


def in_folders(folders: Sequence[Path]) -> Callable[[str], ByteSource]:
    """Finds images by the names that an annotation file has, folders included, in the first folder that has
    them."""
    finders: dict[Path, Callable[[str], ByteSource]] = {}

    def find(file_name: str) -> ByteSource:
        below, name = PurePosixPath(file_name).parent, PurePosixPath(file_name).name
        for folder in folders:
            source = _finder(finders, folder / below)(name)
            if not isinstance(source, MissingFile):
                return source
        return MissingFile(f"its image {file_name[:200]} is missing")

    return find


def _finder(finders: dict[Path, Callable[[str], ByteSource]], folder: Path) -> Callable[[str], ByteSource]:
    if folder not in finders:
        finders[folder] = image_finder(folder, folder_files(folder))
    return finders[folder]


def _any_case(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem + dot + ending.lower()


def _report_unlisted(folder: Path, files: FolderFiles, listed: Set[str], annotations: Path) -> None:
    """The annotation file is the list of the data set: other images are no records, and are reported."""
    unknown = files.sizes.keys() - listed
    known = set(map(_any_case, listed)) if unknown else set()
    others = sorted(
        name
        for name in unknown
        if name.rpartition(".")[2].lower() in IMAGE_ENDINGS and _any_case(name) not in known
    )
    if others:
        logger.warning(
            "%s holds %s beyond those that %s lists, such as %s: left out",
            *(folder, number_of(len(others), "image"), annotations.name, ascii(others[0])),
        )


def from_tars(tars: Sequence[Path]) -> CocoFile:
    """The images of tars of `key.jpg` and `key.json`: {"image": ..., "annotations": [...]}, both as in
    COCO's file.

    An image may say where the official file lists it, as "listed": [position, count], for the folds of
    `stores.subsets`; else its place among the sorted keys is taken.

    Raises DatasetLayoutError for another layout, HostileTarError as `tar_samples`.
    """
    samples = sorted(tar_samples(tars).items())
    ids = IdReader()
    for key, members in samples:
        if "json" not in members or sum(ending in members for ending in IMAGE_ENDINGS) > 1:
            raise DatasetLayoutError(
                f"{tars[0].parent}: sample {key!r} has {', '.join(sorted(members))}; looked for one image "
                "(.jpg) and its annotations (.json) of each sample"
            )

    def entry(position: int) -> ImageEntry:
        key, members = samples[position]
        where = Path(f"{members['json'].tar}:{key}.json")
        whole = parsed_file(where, retried(lambda: members["json"].read(), str(where)))
        if not isinstance(whole.get("image"), dict) or not isinstance(whole.get("annotations"), list):
            raise DatasetLayoutError(f'{where}: expected {{"image": ..., "annotations": [...]}}')
        image_id, hw, _ = image_fields(where, {"file_name": f"{key}.jpg", **whole["image"]}, ids)
        listed = whole["image"].get("listed", [position, len(samples)])
        if not isinstance(listed, list) or len(listed) != 2 or not all(type(part) is int for part in listed):
            raise DatasetLayoutError(f"{where}: listed {str(listed)[:80]}, expected [position, count]")
        image: ByteSource = next(
            (members[ending] for ending in IMAGE_ENDINGS if ending in members),
            MissingFile("its image is missing"),
        )
        annotations = [ids.read(each) for each in objects(where, whole["annotations"], "annotations")]
        return ImageEntry(key, image_id, hw, (listed[0], listed[1]), annotations, image)

    with ThreadPoolExecutor(READ_THREADS) as pool:
        entries = list(pool.map(entry, range(len(samples))))
    ids.report(tars[0].parent)
    return CocoFile(entries=bounded(entries), strangers=Counter())


def _check_categories(
    path: Path, found: Sequence[Mapping[str, Any]], categories: Mapping[int, str], ids: IdReader
) -> None:
    for category in found:
        number, name = ids.whole("id of categories", category.get("id")), category.get("name")
        if number is None or categories.get(number) != name:
            raise DatasetLayoutError(
                f"{path} has category {shown_id(category.get('id'))} {str(name)[:40]!r}, which is none of "
                f"COCO's {len(categories)} categories: this data set is COCO 2017 alone"
            )


def image_fields(
    path: Path, image: PlainImage | Mapping[str, Any], ids: IdReader, *, in_folders: bool = False
) -> tuple[int, Hw, str]:
    """Id, height and width in pixels, and file name of an image as an annotation file lists it.

    Args:
        path: of the file, for errors.
        in_folders: whether the name may hold folders.

    Raises DatasetLayoutError where one of them cannot be used.
    """
    if isinstance(image, PlainImage):
        if image.height * image.width <= LIMIT_PX:
            return image.id, (image.height, image.width), image.file_name
        image = msgspec.structs.asdict(image)
    number, file_name = ids.whole("id of images", image.get("id")), image.get("file_name")
    if not isinstance(file_name, str):
        raise DatasetLayoutError(f"{path}: image {str(image)[:120]} has no file_name")
    if number is None or not -(1 << 63) <= number < 1 << 63:
        raise DatasetLayoutError(
            f"{path}: image {file_name[:120]!r} has the id {shown_id(image.get('id'))}, expected a whole "
            "number of 64 bits"
        )
    if in_folders:
        file_name = file_name.replace("\\", "/").removeprefix("./")
    if not 0 < len(file_name) < _LONGEST_NAME or "\0" in file_name or not _is_name(file_name, in_folders):
        expected = "a path below the folder of images" if in_folders else "a name without folders"
        raise DatasetLayoutError(f"{path}: file_name {file_name[:120]!r}, expected {expected}")
    require_printable(file_name, path)
    height, width = (ids.whole(f"{name} of images", image.get(name)) for name in ("height", "width"))
    if height and width and min(height, width) > 0 and height * width <= LIMIT_PX:
        return number, (height, width), file_name
    raise DatasetLayoutError(
        f"{path}: image {number} of {str(image.get('width'))[:20]}x{str(image.get('height'))[:20]} pixels, "
        f"expected 1 to {LIMIT_PX}"
    )


def _is_name(file_name: str, in_folders: bool) -> bool:
    if not in_folders:
        return "/" not in file_name and file_name != "."
    path = PurePosixPath(file_name)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts
