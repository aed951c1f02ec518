"""Annotations of the ordinary kind, many at a time: polygons or run lengths with all that COCO writes beside.

Types and bounds are checked by msgspec while it parses, without Python code for each number. What is looked
at here is what `coco_json.annotations` looks at, one by one, and with equal results; images with anything out
of the ordinary are left to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from extract.datasets.coco_json.annotations import MAX_OUTLINE, instances_of
from extract.views.instance_targets import rle_bytes, rle_bytes_of
from extract.views.instances import outline_steps
from extract.views.view import Hw

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_NEAR = 1e-6
"""Sums that are so near to a limit are summed as `coco_json.annotations` does it."""
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
    segmentation: (
        Annotated[list[Annotated[list[int | float], Meta(min_length=6)]], Meta(min_length=1)] | RunLengths
    )


class _Image(msgspec.Struct, gc=False):
    height: int
    id: int
    listed: tuple[int, int]
    width: int


class _Canonical(msgspec.Struct, gc=False):
    """What `annotation_bytes` writes."""

    annotations: Sequence[OrdinaryAnnotation]
    image: _Image


def _letters(kind: type[msgspec.Struct]) -> int:
    """How often the letter of exponents stands in the names of the fields."""
    return "".join(kind.__struct_fields__).count("e")


_IN_ENTRY, _IN_RUNS = _letters(OrdinaryAnnotation), _letters(RunLengths)
_IN_WHOLE = _letters(_Image) + _letters(_Canonical)
_DECODER = msgspec.json.Decoder(list[OrdinaryAnnotation])
_ENCODER = msgspec.json.Encoder()
_ID = attrgetter("id")


def entries_of(texts: Sequence[bytes]) -> list[OrdinaryAnnotation] | None:
    """The annotations of an image in the order of their ids; None where one is out of the ordinary."""
    try:
        entries = _DECODER.decode(b"[%b]" % b",".join(texts))
    except (msgspec.MsgspecError, RecursionError):
        return None
    entries.sort(key=_ID)
    return entries


def canonical_bytes(
    image_id: int, hw: Hw, listed: tuple[int, int], entries: Sequence[OrdinaryAnnotation]
) -> bytes | None:
    """`annotation_bytes` of ordinary annotations; None where msgspec may write a number unlike Python.

    Both write the shortest digits that make the number. They differ where Python takes an exponent: below
    1e-4 and from 1e16 on. Nothing else is there: all values are numbers.
    """
    text = _ENCODER.encode(_Canonical(entries, _Image(hw[0], image_id, listed, hw[1])))
    crowds = sum(type(entry.segmentation) is RunLengths for entry in entries)
    in_names = _IN_WHOLE + len(entries) * _IN_ENTRY + crowds * _IN_RUNS
    return text if text.count(b"e") == in_names and b"0.0000" not in text else None


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
        is_fine = np.ones(count, np.bool_)
        of_polygons = [n for n, entry in enumerate(self._entries) if type(entry.segmentation) is list]
        try:
            self._measure_polygons(of_polygons, sizes_hw, extents, steps, is_fine)
            boxes = np.array([entry.bbox for entry in self._entries], np.float64).reshape(-1, 4)
        except (ValueError, TypeError, OverflowError):
            return [None] * len(self._images)
        is_fine &= (boxes[:, 2:] > 0).all(1)
        longest = rle_bytes_of(steps)
        for number in sorted({*range(count)}.difference(of_polygons)) if len(of_polygons) < count else ():
            self._measure_runs(number, sizes_hw, extents, longest, is_fine)
        found: list[Measured | None] = []
        first = 0
        for number, _ in self._images:
            part = slice(first, first + number)
            first += number
            is_ordinary = is_fine[part].all()
            found.append(Measured(extents[part], crowd[part], longest[part]) if is_ordinary else None)
        return found

    def _measure_runs(
        self, number: int, sizes_hw: Ints, extents: Floats, longest: Ints, is_fine: npt.NDArray[np.bool_]
    ) -> None:
        entry, hw = self._entries[number], (int(sizes_hw[number, 0]), int(sizes_hw[number, 1]))
        truth = instances_of(0, hw, (0, 1), [msgspec.to_builtins(entry)], self.label_of)
        is_fine[number] &= len(truth) == 1
        if len(truth) == 1:
            extents[number], longest[number] = truth.extents()[0], rle_bytes(truth)[0]

    def _measure_polygons(
        self,
        numbers: Sequence[int],
        sizes_hw: Ints,
        extents: Floats,
        steps: Ints,
        is_fine: npt.NDArray[np.bool_],
    ) -> None:
        """Fills the rows of instances that are polygons. Raises OverflowError for numbers beyond floats."""
        if not numbers:
            return
        shapes: Any = [self._entries[number].segmentation for number in numbers]
        polygons = list(chain.from_iterable(shapes))
        of_instance = np.fromiter(map(len, shapes), np.int64, len(shapes))
        values = np.fromiter(map(len, polygons), np.int64, len(polygons))
        flat = np.fromiter(chain.from_iterable(polygons), np.float64, int(values.sum()))
        instance = np.concatenate([[0], np.cumsum(of_instance)[:-1]])
        is_odd = np.add.reduceat(values % 2, instance) > 0
        if is_odd.any():  # points cannot be paired across it
            which = np.array(numbers)
            is_fine[which[is_odd]] = False
            self._measure_polygons(which[~is_odd].tolist(), sizes_hw, extents, steps, is_fine)
            return
        points, lengths = flat.reshape(-1, 2), values // 2
        firsts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        edges = np.empty_like(points)
        edges[1:] = points[1:] - points[:-1]
        edges[firsts] = points[firsts] - points[firsts + lengths - 1]
        np.abs(edges, out=edges)
        first_points = firsts[instance]
        low, high = np.minimum.reduceat(points, first_points), np.maximum.reduceat(points, first_points)
        across = np.add.reduceat(edges[:, 0], first_points)
        runs = across + np.add.reduceat(2.0 * lengths + 2, instance)
        outlines = np.add.reduceat(edges.max(1), first_points)
        hw = sizes_hw[numbers]
        limits = hw[:, ::-1].astype(np.float64)
        fits = (low >= -limits).all(1) & (high <= 2 * limits).all(1)  # false of what is not finite
        fits &= outlines < MAX_OUTLINE * hw.sum(1) * (1 - _NEAR)
        longest = np.where(fits, np.ceil(runs), 0).astype(np.int64)
        is_near = fits & (np.abs(runs - np.rint(runs)) < _NEAR * np.maximum(runs, 1))
        for near in np.flatnonzero(is_near).tolist():
            longest[near] = _steps(shapes[near])
        extents[numbers] = np.concatenate([low, high], axis=1)
        steps[numbers], is_fine[numbers] = longest, fits


def _steps(polygons: Sequence[Sequence[float]]) -> int:
    """As `rle_bytes` sums them."""
    parts = [np.array(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    return math.ceil(sum(float(outline_steps(part)[:, 0].sum()) + 2 * len(part) + 2 for part in parts))
