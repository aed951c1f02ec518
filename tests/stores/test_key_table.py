"""Keys as one array: as a tuple of strings in everything but memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import key_table
from stores.errors import PlanError
from stores.format.row_table import LazyTable, RowTable
from stores.key_table import KeyTable

KEYS = st.lists(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=9), min_size=1
)


def table_of(keys: list[str]) -> KeyTable:
    encoded = np.array([key.encode() for key in keys])
    return KeyTable(encoded.view(np.uint8).reshape(len(keys), encoded.dtype.itemsize))


def rows_of(keys: object, views: list[int]) -> RowTable:
    count = len(views)
    hw = np.full((count, 2), 32, np.int32)
    return RowTable(
        keys=keys,  # type: ignore[arg-type]
        view=np.array(views, np.int32),
        params=np.zeros((count, 0)),
        bin=np.zeros(count, np.int32),
        padded_hw=hw,
        valid_hw=hw,
        original_hw=hw,
    )


@given(KEYS, st.lists(st.integers(0, 2), min_size=100, max_size=100))
@settings(max_examples=60)
def test_a_table_is_its_keys(keys: list[str], views: list[int]) -> None:
    found = table_of(keys)
    assert found == tuple(keys) and tuple(found) == tuple(keys) and len(found) == len(keys)
    assert found[-1] == keys[-1] and found[1:3] == tuple(keys[1:3])
    assert found.take(np.arange(len(keys))[::-1]) == tuple(reversed(keys))
    assert found.malformed is None
    some = np.array((views * len(keys))[: len(keys)], np.int32)
    assert found.repeats(some) == (len(set(zip(keys, some.tolist(), strict=True))) < len(keys))


def test_equal_hashes_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_table, "_hashes", lambda table, views: np.zeros(len(table), np.uint64))
    views = np.zeros(4, np.int32)
    assert not table_of(["a", "b", "ab", "ba"]).repeats(views)
    assert table_of(["a", "b", "ab", "a"]).repeats(views)
    assert not table_of(["a", "b", "ab", "a"]).repeats(np.array([0, 0, 0, 1], np.int32))


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [([b"ab", b"\0b"], "\0b"), ([b"ab", b"\0\0"], ""), ([b"a\0b", b"abc"], "a\0b")],
)
def test_malformed_keys_are_refused(raw: list[bytes], wrong: str) -> None:
    table = np.array([list(key) for key in raw], np.uint8)
    with pytest.raises(PlanError, match="record key"):
        rows_of(KeyTable(table), [0] * len(raw))
    with pytest.raises(PlanError, match="record key"):
        rows_of(("x", wrong), [0, 0])


def test_bytes_that_are_no_text_are_refused() -> None:
    # Each end of a key is the beginning of the next: only together they are text.
    with pytest.raises(UnicodeDecodeError):
        KeyTable(np.array([[0x61, 0xC3], [0xA9, 0x61]], np.uint8))


def test_a_table_is_read_when_it_is_used_and_once() -> None:
    reads: list[int] = []

    def read() -> np.ndarray:
        reads.append(1)
        return np.arange(6.0).reshape(3, 2)

    lazy = LazyTable((3, 2), read)
    assert (lazy.shape, lazy.ndim, len(lazy), reads) == ((3, 2), 2, 3, [])
    assert (
        lazy[1].tolist() == [2, 3]
        and np.asarray(lazy).sum() == 15
        and lazy[[0, 2]].tolist() == [[0, 1], [4, 5]]
    )
    assert reads == [1]
