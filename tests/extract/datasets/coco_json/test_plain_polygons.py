"""Polygons read as arrays: equal to those of a JSON parser, or left to it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.datasets.coco_json.plain_polygons import FlatPolygons, read_polygons

COORDINATES = st.one_of(
    st.integers(-9999, 99_999_999),
    st.builds(lambda number, places: number / 10**places, st.integers(-9999, 10**8 - 1), st.integers(0, 8)),
    st.floats(allow_nan=False, allow_infinity=False),
)
POLYGONS = st.lists(st.lists(COORDINATES, min_size=6, max_size=12), min_size=1, max_size=3)
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | COORDINATES | st.text('[],"1.- ', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=8,
)


def _is_polygons(value: Any) -> bool:
    return bool(value) and all(
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(type(number) in (int, float) for number in polygon)
        for polygon in value
    )


@settings(max_examples=50)
@given(
    shapes=st.lists(POLYGONS | st.lists(JUNK, max_size=3), max_size=6),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", ": ")]),
)
def test_plain_texts_are_read_as_a_parser_reads_them(
    shapes: list[list[Any]], separators: tuple[str, str]
) -> None:
    texts = [json.dumps(shape, separators=separators).encode() for shape in shapes]
    is_plain, found = read_polygons(texts)
    plain = [shape for shape, is_so in zip(shapes, is_plain, strict=True) if is_so]
    assert all(map(_is_polygons, plain))
    expected = FlatPolygons.of(plain)
    assert found.values.tobytes() == expected.values.tobytes(), "every bit, the sign of zero too"
    assert np.array_equal(found.lengths, expected.lengths)
    assert np.array_equal(found.counts, expected.counts)
    for shape, is_so in zip(shapes, is_plain.tolist(), strict=True):
        few = _is_polygons(shape) and all(
            len(str(number).strip("-").replace(".", "")) <= 8 and "e" not in str(number)
            for polygon in shape
            for number in polygon
        )
        assert is_so == few, shape


@settings(max_examples=60)
@given(
    numbers=st.lists(
        st.from_regex(r"-?(0|[1-9][0-9]{0,7})(\.[0-9]{1,7})?", fullmatch=True), min_size=6, max_size=6
    )
)
def test_a_plain_text_is_what_python_writes(numbers: list[str]) -> None:
    text = f"[[{','.join(numbers)}]]"
    (is_plain,), _ = read_polygons([text.encode()])
    is_written_so = json.dumps(json.loads(text), separators=(",", ":")) == text
    assert not is_plain or is_written_so
    if is_written_so:
        assert is_plain == all(len(number.strip("-").replace(".", "")) <= 8 for number in numbers)
