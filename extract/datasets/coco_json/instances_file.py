"""An instances file as byte ranges: an annotation is read and parsed when it is needed.

COCO train2017 has 0.5 GB of annotations, which as Python objects take 3 GB. Kept are three numbers an
annotation. A file that is JSON to Python alone (NaN, a byte order mark, UTF-16) is parsed whole.
"""

from __future__ import annotations

import codecs
import mmap
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from extract.datasets.coco_json.byte_ranges import (
    ByteRanges,
    Entry,
    Offsets,
    RangedAnnotations,
    parsed,
)
from extract.datasets.coco_json.ids import ID_FIELDS, IdReader
from extract.sources.byte_sources import retried
from extract.sources.record import DatasetLayoutError

_LISTS = ("images", "annotations", "categories")
_CHUNK = 8 << 20  # 8 MiB


class _Whole(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: msgspec.Raw


class _Ids(msgspec.Struct, gc=False):
    """What is read of every annotation when its file is opened."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    iscrowd: Any = None


class _WholeIds(msgspec.Struct, gc=False):
    """As nearly all files write them."""

    image_id: Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    id: int | None = None
    category_id: int | None = None
    iscrowd: int | None = None


class PlainImage(msgspec.Struct, gc=False):
    """An image as nearly all files list it: all that is read of it, and nothing to look into."""

    id: Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    file_name: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*\Z", max_length=255)]
    height: Annotated[int, msgspec.Meta(ge=1)]
    width: Annotated[int, msgspec.Meta(ge=1)]


_PLAIN_IMAGE = msgspec.json.Decoder(PlainImage)


@dataclass(frozen=True, slots=True)
class _WrittenIds:
    """The ids of a file's annotations as they are written."""

    image_id: Offsets
    """int64 (annotations,); 0 of the odd ones."""
    odd: Mapping[int, Entry]
    """All ids of annotations, by number, of which one is no whole number of 64 bits."""

    def __len__(self) -> int:
        return len(self.image_id)


@dataclass(frozen=True, slots=True)
class InstancesFile:
    """The lists of an instances file."""

    path: Path
    images: Sequence[Any]
    """Text (bytes-like) or parsed, see `image_entries`."""
    annotations: Sequence[Entry] | _WrittenIds
    categories: Sequence[Entry]
    ranges: ByteRanges | None
    """None where the file is parsed whole, and `annotations` holds entries."""

    def image_entries(self) -> Iterator[Entry]:
        """The images as they are listed, one after the other."""
        yield from map(self._image_entry, self.images)

    def plain_or_entries(self) -> Iterator[PlainImage | Entry]:
        """As `image_entries`, of plain images what is read of them."""
        for image in self.images:
            if self.ranges is not None:
                with suppress(msgspec.MsgspecError):
                    yield _PLAIN_IMAGE.decode(image)
                    continue
            yield self._image_entry(image)

    def _image_entry(self, image: Any) -> Entry:
        return _object(self.path, "images", image if self.ranges is None else _strict(image))

    def annotation_entries(self) -> Iterator[Entry]:
        """All annotations as they are listed, ids as they are written."""
        if not isinstance(self.annotations, _WrittenIds):
            yield from self.annotations
        elif self.ranges is not None:
            yield from (parsed(self.ranges.read(number)) for number in range(len(self.annotations)))

    def annotations_by_image(
        self, known: Collection[int], ids: IdReader
    ) -> tuple[Mapping[int, Sequence[Entry]], Counter[str]]:
        """The annotations of each image, and why others have no image."""
        if not isinstance(self.annotations, _WrittenIds):
            return _sorted_entries(self.annotations, known, ids)
        assert self.ranges is not None
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


def _strict(text: msgspec.Raw | bytes) -> Any:
    """`parsed` of what is JSON already; numbers beyond floats are infinite to Python alone."""
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return parsed(bytes(text))


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
        if not _is_utf8(file):
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _ranges_of(path, data)
            except (msgspec.MsgspecError, RecursionError):
                return None


def _ranges_of(path: Path, data: mmap.mmap) -> InstancesFile | None:
    whole = msgspec.json.decode(data, type=_Whole)
    categories = parsed(bytes(whole.categories))
    if not isinstance(categories, list) or not all(isinstance(item, dict) for item in categories):
        return None
    # Copied: nothing may point into the map, which ends here.
    images = [bytes(raw) for raw in whole.images]
    starts, lengths = _places(data, whole.annotations)
    firsts = {image[:1] for image in images} | set(np.unique(_bytes_at(data, starts)).tolist())
    if not firsts <= {b"{", ord("{")}:
        return None
    ids = _written_ids(whole.annotations)
    return InstancesFile(path, images, ids, categories, ByteRanges(path, starts, lengths))


def _bytes_at(data: mmap.mmap, places: Offsets) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)[places]


def _places(data: mmap.mmap, parts: Sequence[msgspec.Raw]) -> tuple[Offsets, Offsets]:
    """Where each object of a list begins in the file, and its bytes: int64 (parts,), twice.

    Objects follow one another with the same few bytes between nearly always. Where only a comma and white
    space stand between the end of one and the brace at which the next would begin, it does begin there.
    """
    lengths = np.fromiter((memoryview(raw).nbytes for raw in parts), np.int64, len(parts))
    if len(parts) < 2:
        starts = np.array([_address(raw) - _address(data) for raw in parts], np.int64)
        return starts, lengths
    base, first = _address(data), _address(parts[0])
    gap = _address(parts[1]) - first - int(lengths[0])
    starts = first - base + np.concatenate([[0], np.cumsum(lengths[:-1] + gap)])
    text, stops = np.frombuffer(data, np.uint8), starts + lengths
    between = bytes(text[int(stops[0]) : int(starts[1])])
    is_same = int(stops[-1]) <= len(text) and between.strip() == b","
    for place, byte in enumerate(between + b"{"):
        is_same = is_same and bool((text[stops[:-1] + place] == byte).all())
    del text  # or the map could not be closed
    if not is_same:
        starts = np.fromiter((_address(raw) - base for raw in parts), np.int64, len(parts))
    return starts, lengths


def _written_ids(parts: Sequence[msgspec.Raw]) -> _WrittenIds:
    decode, odd = msgspec.json.Decoder(_WholeIds).decode, dict[int, Entry]()
    found = np.zeros(len(parts), np.int64)
    for number, raw in enumerate(parts):
        try:
            found[number] = decode(raw).image_id
        except msgspec.ValidationError:
            ids = msgspec.json.decode(raw, type=_Ids)
            odd[number] = {name: getattr(ids, name) for name in ID_FIELDS}
    return _WrittenIds(found, odd)


def _address(buffer: Any) -> int:
    address: int = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    return address


def _is_utf8(file: BinaryIO) -> bool:
    """Parts that are parsed later must be text; ranges of them are not looked at before."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with suppress(UnicodeDecodeError):
        while part := file.read(_CHUNK):
            if not part.isascii() or decoder.getstate()[0]:
                decoder.decode(part)
        return not decoder.getstate()[0]
    return False


def _sorted_numbers(
    written: _WrittenIds, known: Collection[int], ids: IdReader
) -> tuple[dict[int, npt.NDArray[np.int32]], Counter[str]]:
    strangers: Counter[str] = Counter()
    images = written.image_id
    kept = np.isin(images, np.fromiter(known, np.int64, len(known)))
    kept[list(written.odd)] = True  # looked at here, and not counted as strangers twice
    if others := int((~kept).sum()):
        strangers[_stranger(0)] = others
    for number, odd in written.odd.items():
        image_id = ids.read(odd).get("image_id")
        kept[number] = False
        if type(image_id) is int and image_id in known:
            images[number], kept[number] = image_id, True
        else:
            strangers[_stranger(image_id)] += 1
    numbers = np.flatnonzero(kept)
    order = numbers[np.argsort(images[numbers], kind="stable")].astype(np.int32)
    found, firsts = np.unique(images[order], return_index=True)
    stops = [*firsts[1:].tolist(), len(order)]
    parts = [order[first:stop] for first, stop in zip(firsts.tolist(), stops, strict=len(firsts) > 0)]
    return dict(zip(found.tolist(), parts, strict=True)), strangers


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
