"""Annotations of the ordinary kind, many at a time: polygons or run lengths with all that COCO writes beside.

Types and bounds are checked by msgspec while it parses, and polygons are read as whole arrays
(`coco_json.plain_polygons`), without Python code for each number. What is looked at here is what
`coco_json.annotations` looks at, one by one, and with equal results; images with anything out of the ordinary
are left to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from operator import attrgetter
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from extract.datasets.coco_json.annotations import instances_of
from extract.datasets.coco_json.plain_polygons import WHITE_SPACE, FlatPolygons, read_polygons
from extract.datasets.coco_json.polygon_measures import measured_polygons
from extract.views.instance_targets import rle_bytes, rle_bytes_of
from extract.views.view import Hw

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_INT64 = 1 << 63
_NOT_NEGATIVE = Meta(ge=0)


class RunLengths(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Of a crowd."""

    counts: list[int]
    size: list[int]


class OrdinaryAnnotation(msgspec.Struct, gc=False):
    """The fields of `coco_json.annotations.FIELDS`, in the order of canonical JSON."""

    area: Annotated[int, _NOT_NEGATIVE] | Annotated[float, _NOT_NEGATIVE]
    bbox: Annotated[list[int | float], Meta(min_length=4, max_length=4)]
    category_id: int
    id: int
    iscrowd: Literal[0, 1]
    segmentation: msgspec.Raw
    """As in the file; canonical but for white space, once its block is measured."""


class _Image(msgspec.Struct, gc=False):
    height: int
    id: int
    listed: tuple[int, int]
    width: int


class _Canonical(msgspec.Struct, gc=False):
    """What `annotation_bytes` writes."""

    annotations: Sequence[OrdinaryAnnotation]
    image: _Image


_DECODER = msgspec.json.Decoder(list[OrdinaryAnnotation])
_RUNS = msgspec.json.Decoder(RunLengths)
_POLYGONS = msgspec.json.Decoder(
    Annotated[list[Annotated[list[int | float], Meta(min_length=6)]], Meta(min_length=1)]
)
_ENCODER = msgspec.json.Encoder()
_ID = attrgetter("id")


def entries_of(texts: Sequence[bytes]) -> list[OrdinaryAnnotation] | None:
    """The annotations of an image in the order of their ids; None where one is out of the ordinary.

    `OrdinaryBlock.measured` looks at their polygons.
    """
    try:
        entries = _DECODER.decode(b"[%b]" % b",".join(texts))
    except (msgspec.MsgspecError, RecursionError):
        return None
    entries.sort(key=_ID)
    return entries


def canonical_bytes(
    image_id: int, hw: Hw, listed: tuple[int, int], entries: Sequence[OrdinaryAnnotation]
) -> bytes:
    """`annotation_bytes` of annotations that were measured, and are ordinary."""
    text = _ENCODER.encode(_Canonical(entries, _Image(hw[0], image_id, listed, hw[1])))
    return text.translate(None, WHITE_SPACE)  # of segmentations; no name or value has any


@dataclass(frozen=True, slots=True)
class Measured:
    """The instances of one image as planning needs them."""

    extents: Floats
    """float64 (instances, 4)."""
    crowd: npt.NDArray[np.bool_]
    rle_bytes: Ints
    """No mask's compressed counts are longer."""


@dataclass(slots=True)
class OrdinaryBlock:
    """Annotations of several images, measured together."""

    label_of: Mapping[int, int]
    _images: list[tuple[int, Hw]] = field(default_factory=list)
    """Instances of each image, and its size."""
    _entries: list[OrdinaryAnnotation] = field(default_factory=list)

    def add(self, hw: Hw, entries: Sequence[OrdinaryAnnotation]) -> bool:
        """Takes the annotations of an image, in the order of their ids; False, and none is taken, where a
        category is unknown or an id beyond 64 bits."""
        if entries and not -_INT64 <= entries[0].id <= entries[-1].id < _INT64:
            return False
        if not all(entry.category_id in self.label_of for entry in entries):
            return False
        self._images.append((len(entries), hw))
        self._entries += entries
        return True

    def measured(self) -> list[Measured | None]:
        """Of each image; None of one that is out of the ordinary after all."""
        count = len(self._entries)
        extents, steps = np.zeros((count, 4)), np.zeros(count, np.int64)
        crowd = np.fromiter((entry.iscrowd for entry in self._entries), np.bool_, count)
        sizes_hw = np.repeat(
            np.array([hw for _, hw in self._images], np.int64).reshape(-1, 2),
            [number for number, _ in self._images],
            axis=0,
        )
        is_fine = self._writes_as_python()
        texts = [bytes(entry.segmentation) for entry in self._entries]
        is_list = np.fromiter((text.startswith(b"[") for text in texts), np.bool_, count)
        lists = np.flatnonzero(is_list)
        is_plain, plain = read_polygons(list(compress(texts, is_list.tolist())))
        parsed, others = self._parsed_polygons(lists[~is_plain].tolist(), is_fine)
        for numbers, polygons in ((lists[is_plain], plain), (parsed, others)):
            if len(numbers):
                found = measured_polygons(polygons, sizes_hw[numbers])
                extents[numbers], steps[numbers] = found.extents, found.steps
                is_fine[numbers] &= found.fits
        longest = rle_bytes_of(steps)
        for number in np.flatnonzero(~is_list).tolist():
            self._measure_runs(number, sizes_hw, extents, longest, is_fine)
        stops = np.cumsum([number for number, _ in self._images]).tolist()
        parts = [slice(first, stop) for first, stop in zip([0, *stops], stops, strict=False)]
        bad = set(np.searchsorted(stops, np.flatnonzero(~is_fine), "right").tolist())
        return [
            None if image in bad else Measured(extents[part], crowd[part], longest[part])
            for image, part in enumerate(parts)
        ]

    def _writes_as_python(self) -> npt.NDArray[np.bool_]:
        """(entries,): whether area and box of each are such that msgspec writes them as Python, and usable.

        Both write the shortest digits that make the number. They differ where Python takes an exponent.
        """
        try:
            numbers = chain.from_iterable(entry.bbox for entry in self._entries)
            boxes = np.fromiter(numbers, np.float64, 4 * len(self._entries)).reshape(-1, 4)
            areas = np.fromiter((entry.area for entry in self._entries), np.float64, len(self._entries))
        except OverflowError:  # a whole number beyond floats
            return np.zeros(len(self._entries), np.bool_)
        return _is_usual(areas) & _is_usual(boxes).all(1) & (boxes[:, 2:] > 0).all(1)

    def _measure_runs(
        self, number: int, sizes_hw: Ints, extents: Floats, longest: Ints, is_fine: npt.NDArray[np.bool_]
    ) -> None:
        entry, hw = self._entries[number], (int(sizes_hw[number, 0]), int(sizes_hw[number, 1]))
        try:
            runs = _RUNS.decode(entry.segmentation)
        except msgspec.MsgspecError:
            is_fine[number] = False
            return
        entry.segmentation = msgspec.Raw(_ENCODER.encode(runs))
        whole = {**msgspec.structs.asdict(entry), "segmentation": msgspec.to_builtins(runs)}
        truth = instances_of(0, hw, (0, 1), [whole], self.label_of)
        is_fine[number] &= len(truth) == 1
        if len(truth) == 1:
            extents[number], longest[number] = truth.extents()[0], rle_bytes(truth)[0]

    def _parsed_polygons(
        self, numbers: Sequence[int], is_fine: npt.NDArray[np.bool_]
    ) -> tuple[Ints, FlatPolygons]:
        """Which of these entries are polygons, though not written as Python writes them; and the polygons.

        Their segmentation becomes canonical.
        """
        read: dict[int, list[list[int | float]]] = {}
        for number in numbers:
            entry = self._entries[number]
            try:
                polygons = _POLYGONS.decode(entry.segmentation)
                values = np.fromiter(chain.from_iterable(polygons), np.float64)
            except (msgspec.MsgspecError, OverflowError):
                is_fine[number] = False
                continue
            if any(len(polygon) % 2 for polygon in polygons) or not _is_usual(values).all():
                is_fine[number] = False
                continue
            read[number], entry.segmentation = polygons, msgspec.Raw(_ENCODER.encode(polygons))
        return np.array(list(read), np.int64), FlatPolygons.of(list(read.values()))


def _is_usual(values: Floats) -> npt.NDArray[np.bool_]:
    """Of each, whether Python writes it without an exponent, as msgspec does; false of what is not finite."""
    sizes = np.abs(values)
    is_usual: npt.NDArray[np.bool_] = (values == 0) | ((sizes >= 1e-4) & (sizes < 1e16))
    return is_usual
