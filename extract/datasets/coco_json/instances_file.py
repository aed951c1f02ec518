"""An instances file as byte ranges: an annotation is read and parsed when it is needed.

COCO train2017 has 0.5 GB of annotations, which as Python objects take 3 GB. Kept are two numbers an
annotation. A file that is JSON to Python alone (NaN, a byte order mark, UTF-16) is parsed whole.
"""

from __future__ import annotations

import codecs
import json
import mmap
import os
import weakref
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from extract.datasets.coco_json.ids import ID_FIELDS, IdReader
from extract.sources.byte_sources import retried
from extract.sources.record import DatasetLayoutError

Entry = Mapping[str, Any]
Offsets = npt.NDArray[np.int64]
_LISTS = ("images", "annotations", "categories")
_CHUNK = 8 << 20  # 8 MiB


class _Whole(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: msgspec.Raw


class _Ids(msgspec.Struct):
    """What is read of every annotation when its file is opened."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    iscrowd: Any = None


class ByteRanges:
    """An open file and the places of its annotations; thread-safe, for `pread` has no position."""

    def __init__(self, path: Path, starts: Offsets, stops: Offsets) -> None:
        self.starts, self.stops, self._path = starts, stops, path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def read(self, number: int) -> bytes:
        """One annotation as it stands in the file. Raises OSError."""
        start, stop = int(self.starts[number]), int(self.stops[number])
        try:
            found = os.pread(self._file, stop - start, start)
        except OSError:
            found = retried(lambda: os.pread(self._file, stop - start, start), str(self._path))
        if len(found) != stop - start:
            raise DatasetLayoutError(f"{self._path} became shorter while it was read; run the command again")
        return found


@dataclass(frozen=True, slots=True)
class RangedAnnotations(Sequence[Entry]):
    """Annotations of one image, parsed each time."""

    ranges: ByteRanges
    numbers: npt.NDArray[np.int32]
    """Of the annotations in their file."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self._entry(number) for number in self.numbers[place].tolist()]
        return self._entry(int(self.numbers[place]))

    def texts(self) -> list[bytes]:
        """As they stand in the file."""
        return [self.ranges.read(number) for number in self.numbers.tolist()]

    def _entry(self, number: int) -> Entry:
        try:
            entry = parsed(self.ranges.read(number))
        except ValueError as error:
            raise DatasetLayoutError(
                f"an annotation file changed while it was read ({error}); run the command again"
            ) from None
        return IdReader().read(entry)


@dataclass(frozen=True, slots=True)
class InstancesFile:
    """The lists of an instances file."""

    path: Path
    images: Sequence[Any]
    """Text (bytes-like) or parsed, see `image_entries`."""
    annotations: Sequence[Any]
    categories: Sequence[Entry]
    ranges: ByteRanges | None
    """None where the file is parsed whole, and `annotations` holds entries."""

    def image_entries(self) -> Iterator[Entry]:
        """The images as they are listed, one after the other."""
        for image in self.images:
            yield _object(self.path, "images", image if self.ranges is None else parsed(bytes(image)))

    def annotation_entries(self) -> Iterator[Entry]:
        """All annotations as they are listed, ids as they are written."""
        if self.ranges is None:
            yield from self.annotations
        else:
            yield from (parsed(self.ranges.read(number)) for number in range(len(self.annotations)))

    def annotations_by_image(
        self, known: Collection[int], ids: IdReader
    ) -> tuple[Mapping[int, Sequence[Entry]], Counter[str]]:
        """The annotations of each image, and why others have no image."""
        if self.ranges is None:
            return _sorted_entries(self.annotations, known, ids)
        found, strangers = _sorted_numbers(self.annotations, known, ids)
        ranges = self.ranges
        return {image: RangedAnnotations(ranges, numbers) for image, numbers in found.items()}, strangers


def read_instances_file(path: Path, has_truth: bool = True) -> InstancesFile:
    """An instances file: lists of images, annotations and categories.

    Args: has_truth: False of a split whose annotations are not published: an empty list of them.

    Raises DatasetLayoutError where it is no such file, or lists no images. OSError: it could not be read.
    """
    found = retried(lambda: _as_ranges(path), str(path)) if has_truth else None
    if found is None:
        whole = parsed_file(path, retried(path.read_bytes, str(path)))
        if not has_truth:
            whole["annotations"] = []
        for name in _LISTS:
            for entry in _list(path, whole, name):
                _object(path, name, entry)
        found = InstancesFile(path, whole["images"], whole["annotations"], whole["categories"], None)
    if not found.images:
        raise DatasetLayoutError(f"{path} lists no images")
    return found


def parsed(text: bytes) -> Any:
    """JSON of Python's kind; NaN and Infinity are None: their instance is unusable. Raises ValueError."""
    return json.loads(text, parse_constant=lambda _: None)


def parsed_file(path: Path, data: bytes) -> dict[str, Any]:
    """The JSON object in a file. Raises DatasetLayoutError for anything else."""
    try:
        whole = parsed(data)
    except (ValueError, RecursionError) as error:
        raise DatasetLayoutError(f"{path} is not JSON: {type(error).__name__}: {str(error)[:160]}") from None
    if not isinstance(whole, dict):
        raise DatasetLayoutError(f"{path} holds a {type(whole).__name__}, expected a JSON object")
    return whole


def objects(path: Path, value: Any, name: str) -> list[Entry]:
    """A list of objects. Raises DatasetLayoutError for anything else."""
    return [_object(path, name, item) for item in _list(path, {name: value}, name)]


def _list(path: Path, whole: Mapping[str, Any], name: str) -> list[Any]:
    value = whole.get(name)
    if not isinstance(value, list):
        raise _no_objects(path, name)
    return value


def _object(path: Path, name: str, item: Any) -> Entry:
    if not isinstance(item, dict):
        raise _no_objects(path, name)
    return item


def _no_objects(path: Path, name: str) -> DatasetLayoutError:
    return DatasetLayoutError(f"{path}: {name} is not a list of objects, as in COCO's instances_*.json")


def _as_ranges(path: Path) -> InstancesFile | None:
    """None for what msgspec does not take for JSON of this kind: Python's parser has the last word."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                if not _is_utf8(data):
                    return None
                return _ranges_of(path, data)
            except (msgspec.MsgspecError, RecursionError):
                return None


def _ranges_of(path: Path, data: mmap.mmap) -> InstancesFile | None:
    whole = msgspec.json.decode(data, type=_Whole)
    if any(bytes(memoryview(raw)[:1]) != b"{" for raw in (*whole.images, *whole.annotations)):
        return None
    categories = parsed(bytes(whole.categories))
    if not isinstance(categories, list) or not all(isinstance(item, dict) for item in categories):
        return None
    decoder = msgspec.json.Decoder(_Ids)
    base = _address(data)
    starts = np.fromiter((_address(raw) - base for raw in whole.annotations), np.int64)
    lengths = np.fromiter((memoryview(raw).nbytes for raw in whole.annotations), np.int64)
    ids = [_packed(decoder.decode(raw)) for raw in whole.annotations]
    # Copied: nothing may point into the map, which ends here.
    images = [bytes(raw) for raw in whole.images]
    return InstancesFile(path, images, ids, categories, ByteRanges(path, starts, starts + lengths))


def _packed(ids: _Ids) -> Any:
    """Its image alone where all ids are whole numbers, as of nearly all annotations; else all of them."""
    written = (ids.id, ids.image_id, ids.category_id, ids.iscrowd)
    if type(ids.image_id) is int and all(value is None or type(value) is int for value in written):
        return ids.image_id
    return dict(zip(ID_FIELDS, written, strict=True))


def _address(buffer: Any) -> int:
    address: int = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    return address


def _is_utf8(data: mmap.mmap) -> bool:
    """Parts that are parsed later must be text; ranges of them are not looked at before."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with suppress(UnicodeDecodeError):
        for start in range(0, len(data), _CHUNK):
            part = data[start : start + _CHUNK]
            if not part.isascii() or decoder.getstate()[0]:
                decoder.decode(part, start + _CHUNK >= len(data))
        return not decoder.getstate()[0]
    return False


def _sorted_numbers(
    written: Sequence[Any], known: Collection[int], ids: IdReader
) -> tuple[dict[int, npt.NDArray[np.int32]], Counter[str]]:
    strangers: Counter[str] = Counter()
    images = np.empty(len(written), np.int64)
    kept = np.zeros(len(written), bool)
    for number, packed in enumerate(written):
        image_id = packed if type(packed) is int else ids.read(packed).get("image_id")
        if type(image_id) is int and image_id in known:
            images[number], kept[number] = image_id, True
        else:
            strangers[_stranger(image_id)] += 1
    numbers = np.flatnonzero(kept)
    order = numbers[np.argsort(images[numbers], kind="stable")].astype(np.int32)
    of_image = images[order]
    firsts = np.flatnonzero(np.r_[True, of_image[1:] != of_image[:-1]]) if len(order) else order
    parts = np.split(order, firsts[1:])
    return dict(zip(of_image[firsts].tolist(), parts, strict=False)) if len(order) else {}, strangers


def _sorted_entries(
    entries: Sequence[Entry], known: Collection[int], ids: IdReader
) -> tuple[Mapping[int, list[Entry]], Counter[str]]:
    found: dict[int, list[Entry]] = defaultdict(list)
    strangers: Counter[str] = Counter()
    for written in entries:
        annotation = ids.read(written)
        image_id = annotation.get("image_id")
        if type(image_id) is int and image_id in known:
            found[image_id].append(annotation)
        else:
            strangers[_stranger(image_id)] += 1
    return found, strangers


def _stranger(image_id: Any) -> str:
    is_listed = "is not listed" if type(image_id) is int else "has no whole number as its id"
    return f"its image {is_listed}"
