"""Stuff maps of detection data: a class for every pixel, which HTC's semantic branch learns from.

Two kinds lie beside COCO's annotations. `stuffthingmaps` are COCO-Stuff's pixel maps,
stuffthingmaps/<split>/<image>.png: X configurations of HTC (183 classes). `panoptic` are the panoptic PNGs,
annotations/panoptic_<split>/<image>.png, whose colours are numbers of the segments in
annotations/panoptic_<split>.json; a segment becomes the place of its category among those of the file by id:
133 classes, 0 to 132.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.sources.byte_sources import (
    BAD_TARGET,
    ByteSource,
    SourceError,
    decode_image,
    decode_label_values,
)
from extract.sources.listing import MissingFile, folder_files, folders_below, sources_by_stem
from extract.sources.record import DatasetLayoutError
from extract.views.view import IGNORE, Hw

STUFF_KINDS = ("stuffthingmaps", "panoptic")
MOST_STUFF = 183
"""COCO-Stuff's ids are 1 to 182; a map with a larger value is another one's."""
StuffMap = npt.NDArray[np.uint8]
"""(H, W), 255 = ignored."""
_SEPARATOR = b"\n"
"""Between the annotation of an image, JSON on one line, and its map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StuffMaps:
    """The maps of a split, by the key of their image."""

    kind: str
    """How they are read, part of a store's identity."""
    sources: Mapping[str, ByteSource]
    segments: Mapping[str, Mapping[int, int]] | None = None
    """Of panoptic maps: the class of every segment."""

    def source(self, key: str) -> ByteSource:
        return self.sources.get(key, MissingFile("its stuff map is missing"))

    def joined(self, key: str, annotation: bytes) -> bytes:
        """An image's annotation with its map, as digests and `split` take it. Raises SourceError, OSError."""
        facts = b"" if self.segments is None else _facts(self.segments.get(key, {}))
        return _SEPARATOR.join((annotation, facts, self.source(key).read()))

    def split(self, joined: bytes, hw: Hw) -> tuple[bytes, StuffMap]:
        """The inverse of `joined`: the annotation, and the map at its image's size. Raises SourceError."""
        annotation, facts, data = joined.split(_SEPARATOR, 2)
        found = _pixel_map(data) if self.segments is None else _panoptic_map(data, json.loads(facts))
        if found.shape != hw:
            (h, w), (image_h, image_w) = found.shape, hw
            raise SourceError(BAD_TARGET, f"stuff map of {w}x{h} pixels, its image has {image_w}x{image_h}")
        return annotation, found


def open_stuff(root: Path, split: str, kind: str) -> StuffMaps:
    """The maps of a split of COCO.

    Args:
        root: the folder that holds `annotations` and the images.
        kind: of STUFF_KINDS.

    Raises DatasetLayoutError, naming what was looked for, where there are none.
    """
    if kind not in STUFF_KINDS:
        raise DatasetLayoutError(f"stuff {kind!r}: expected {' or '.join(STUFF_KINDS)}")
    if kind == "panoptic":
        return _open_panoptic(root, split)
    return pixel_maps([root / "stuffthingmaps" / split], _GET_PIXEL_MAPS)


_GET_PIXEL_MAPS = (
    "get stuffthingmaps_trainval2017.zip of COCO-Stuff (github.com/nightrome/cocostuff) and unpack it there"
)
_GET_PANOPTIC = (
    "get panoptic_annotations_trainval2017.zip from cocodataset.org, unpack it there, and the zip within it"
)


def pixel_maps(folders: Sequence[Path], advice: str) -> StuffMaps:
    """Maps in folders and those below them, by their paths from there without ending.

    Raises DatasetLayoutError, which ends with the advice, where none holds a PNG.
    """
    sources: dict[str, ByteSource] = {}
    for folder in folders:
        for below, path in folders_below(folder):
            for stem, source in sources_by_stem(path, ("png",), "stuff map").items():
                sources[f"{below}/{stem}" if below else stem] = source
    if not sources:
        looked = ", ".join(f"{folder}/*.png" for folder in folders)
        raise DatasetLayoutError(f"looked for stuff maps {looked}, found none; {advice}")
    return StuffMaps(kind="stuffthingmaps", sources=sources)


def _open_panoptic(root: Path, split: str) -> StuffMaps:
    path = root / "annotations" / f"panoptic_{split}.json"
    folder = root / "annotations" / f"panoptic_{split}"
    if not path.is_file() or not folder_files(folder).sizes:
        found = "the first" if path.is_file() else "the second" if folder.is_dir() else "neither"
        raise DatasetLayoutError(f"looked for {path} and {folder}/*.png, found {found}; {_GET_PANOPTIC}")
    try:
        whole = json.loads(path.read_bytes())
        numbers = sorted(int(category["id"]) for category in whole["categories"])
        place = {number: index for index, number in enumerate(numbers)}
        segments = {
            PurePosixPath(each["file_name"]).stem: {
                int(segment["id"]): place[segment["category_id"]] for segment in each["segments_info"]
            }
            for each in whole["annotations"]
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetLayoutError(
            f"{path} is no panoptic file: {type(error).__name__}: {str(error)[:120]}"
        ) from None
    if not 0 < len(numbers) <= MOST_STUFF:
        raise DatasetLayoutError(f"{path} lists {len(numbers)} categories, expected 1 to {MOST_STUFF}")
    sources = sources_by_stem(folder, ("png",), "stuff map")
    return StuffMaps(kind="panoptic", sources=sources, segments=segments)


def _facts(segments: Mapping[int, int]) -> bytes:
    return json.dumps(sorted(segments.items()), separators=(",", ":")).encode()


def _pixel_map(data: bytes) -> StuffMap:
    values = _decoded(lambda: decode_label_values(data))
    strange = values[(values >= MOST_STUFF) & (values != IGNORE)]
    if strange.size:
        raise SourceError(
            BAD_TARGET, f"stuff map holds {int(strange[0])}, expected 0 to {MOST_STUFF - 1} and {IGNORE}"
        )
    found: StuffMap = values.astype(np.uint8)
    return found


def _panoptic_map(data: bytes, pairs: Sequence[tuple[int, int]]) -> StuffMap:
    rgb = _decoded(lambda: decode_image(data)).astype(np.int64)
    numbers = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    there, inverse = np.unique(numbers, return_inverse=True)
    class_of = {0: IGNORE, **dict(pairs)}
    unknown = [int(number) for number in there if int(number) not in class_of]
    if unknown:
        raise SourceError(BAD_TARGET, f"panoptic map holds segment {unknown[0]}, which its json lacks")
    classes = np.array([class_of[int(number)] for number in there], np.uint8)
    found: StuffMap = classes[inverse].reshape(numbers.shape)
    return found


def _decoded(decode: Callable[[], Any]) -> Any:
    try:
        return decode()
    except SourceError as error:
        raise SourceError(BAD_TARGET, f"stuff map: {error.reason}") from None
