"""Polygons of many annotations as arrays, read from their text without a Python object for each number.

COCO train2017 has 46 million coordinates, and making floats of them one by one is most of the work of
planning it. Nearly all are written as Python would write them, with a few digits: their text is canonical
JSON already, and they are read here whole blocks at a time. Whatever is written otherwise is reported, not
read, and left to a JSON parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

MOST_DIGITS = 8
"""Of a number. The shortest form that makes a float of so few digits is these digits."""
_POWERS = 10.0 ** np.arange(MOST_DIGITS + 1)
_EXPONENT_BELOW = 1e-4
"""Python writes smaller floats with an exponent."""
WHITE_SPACE = b" \t\n\r"
"""Of JSON."""
_POLYGON_DEPTH = 2
"""Lists around a coordinate."""
_FEWEST_NUMBERS = 6
_FEWEST_NUMBERS = 6
_ZERO, _COMMA, _OPEN, _CLOSE, _DOT, _MINUS = b"0,[].-"


@dataclass(frozen=True, slots=True)
class FlatPolygons:
    """The polygons of several instances, one after the other; at least one of each."""

    values: Floats
    """(numbers,): x and y in turn."""
    lengths: Ints
    """(polygons,): numbers of each, even and at least 6."""
    counts: Ints
    """(instances,): polygons of each."""

    @classmethod
    def of(cls, shapes: Sequence[Sequence[Sequence[float]]]) -> FlatPolygons:
        """Of parsed polygons. Raises OverflowError for numbers beyond floats."""
        polygons = list(chain.from_iterable(shapes))
        lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
        values = np.fromiter(chain.from_iterable(polygons), np.float64, int(lengths.sum()))
        return cls(values, lengths, np.fromiter(map(len, shapes), np.int64, len(shapes)))


def read_polygons(texts: Sequence[bytes]) -> tuple[Bools, FlatPolygons]:
    """Which JSON texts are plain polygons, (texts,), and the polygons of these.

    A text is plain if it is a list of lists of coordinates, and `json.dumps` would write it as it is written,
    but for white space.

    Args:
        texts: valid JSON lists, which is not looked at again.
    """
    is_plain, found = _read(texts)
    if not is_plain.all():
        _, found = _read(list(compress(texts, is_plain.tolist())))
    return is_plain, found


def _read(texts: Sequence[bytes]) -> tuple[Bools, FlatPolygons]:
    """As `read_polygons`; the polygons mean something where all texts are plain."""
    text = b",".join(texts).translate(None, WHITE_SPACE)
    codes = np.frombuffer(text, np.uint8)
    marks = np.flatnonzero(codes - _ZERO > 9)  # all that is no digit; uint8 wraps
    mark = codes[marks]
    is_comma, is_open, is_close = mark == _COMMA, mark == _OPEN, mark == _CLOSE
    is_known = is_comma | is_open | is_close | (mark == _DOT) | (mark == _MINUS)
    brackets = np.flatnonzero(is_open | is_close)
    depth = np.cumsum(np.where(is_open[brackets], 1, -1))
    opened = is_open[brackets]
    starts = marks[brackets[opened & (depth == 1)]]
    if not is_known.all():  # where strings are, brackets may be of them
        starts = np.cumsum([0, *(1 + len(each.translate(None, WHITE_SPACE)) for each in texts)])[:-1]
    has_digits = np.diff(marks, prepend=-1) > 1  # before it
    ends = np.flatnonzero(has_digits & (is_comma | is_close))
    values, is_odd = _values(text.translate(None, b"."), marks, mark, ends)
    firsts = brackets[opened & (depth == _POLYGON_DEPTH)]
    lengths = np.diff(np.append(np.searchsorted(ends, firsts), len(ends)))
    counts = np.diff(np.append(np.searchsorted(marks[firsts], starts), len(firsts)))
    odd_places = [
        marks[~is_known],
        _misplaced(marks[brackets], opened, depth),
        marks[ends[is_odd]] - 1,
        marks[firsts[(lengths < _FEWEST_NUMBERS) | (lengths % 2 == 1)]],
        starts[counts == 0],
    ]
    is_plain = np.ones(len(texts), np.bool_)
    is_plain[np.searchsorted(starts, np.concatenate(odd_places), "right") - 1] = False
    return is_plain, FlatPolygons(values, lengths, counts)


def _misplaced(place: Ints, is_open: Bools, depth: Ints) -> Ints:
    """Which of the brackets are of lists that are nested in another way than polygons, or are before numbers
    outside of polygons."""
    gap = np.diff(place, append=place[-1:] + 1) - 1  # bytes up to the next bracket
    between = np.where(is_open, 0, 1)  # no more than the comma behind a list
    return place[(depth > _POLYGON_DEPTH) | ((depth < _POLYGON_DEPTH) & (gap > between))]


def _values(digits: bytes, marks: Ints, mark: Bytes, ends: Ints) -> tuple[Floats, Bools]:
    """The numbers as floats, and whether each is written otherwise than Python writes it.

    A number of few digits is these, a whole number, over a power of ten. Both are floats without an error,
    and so their quotient is the nearest float, as every parser gives it (Clinger, "How to Read Floating Point
    Numbers Accurately", PLDI 1990).

    Args:
        digits: the text without its dots.
        marks: where something stands in the text that is no digit, and `mark` what it is.
        ends: of each number, which mark follows it.
    """
    has_dot = mark[ends - 1] == _DOT
    before = ends - 1 - has_dot
    is_negative = mark[before] == _MINUS
    stops = marks[ends]
    decimals = (stops - 1 - marks[ends - 1]) * has_dot
    lengths = stops - 1 - marks[before] - has_dot
    # The dots of what is no plain number are not counted: whatever is read of it must lie in the text.
    last_eight = _eight_before(digits, np.minimum(stops - np.cumsum(has_dot), len(digits)))
    whole = _whole_numbers(last_eight, np.minimum(lengths, MOST_DIGITS))
    values = whole / _POWERS[np.minimum(decimals, MOST_DIGITS)]
    is_odd = lengths > MOST_DIGITS
    is_odd |= (decimals > 1) & (last_eight >> 56 == _ZERO)  # 1.50
    is_odd |= has_dot & (whole > 0) & (values < _EXPONENT_BELOW)
    if is_negative.any():
        is_odd |= is_negative & ~has_dot & (whole == 0)  # -0 is 0 to Python
        np.negative(values, out=values, where=is_negative)
    return values, is_odd


def _eight_before(text: bytes, stops: Ints) -> Words:
    """The eight bytes before each place, as one little-endian number."""
    padded = bytes(8) + text
    words: Words = np.ndarray((len(text) + 1,), "<u8", padded, strides=(1,))[stops]
    return words


def _whole_numbers(words: Words, lengths: Ints) -> Words:
    """Of eight digits each, the number that the last `lengths` of them make.

    Neighbours are joined, all pairs of a word at once: digits to numbers of two, these to numbers of four,
    these to one (Lemire, "Quickly parsing eight digits", 2018).
    """
    others = ((8 - lengths) * 8).astype(np.uint64)  # bits
    joined = (words & 0x0F0F0F0F0F0F0F0F) >> others << others
    joined = (joined * 10 + (joined >> 8)) & 0x00FF00FF00FF00FF
    joined = (joined * 100 + (joined >> 16)) & 0x0000FFFF0000FFFF
    return np.asarray((joined * 10000 + (joined >> 32)) & 0xFFFFFFFF, np.uint64)
