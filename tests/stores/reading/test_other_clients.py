"""What other readers of Zarr return of a damaged store: the table in docs/store-format.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from stores import open_store
from stores.errors import IntegrityError
from stores.format.plan import Bin
from tests.faults.made_stores import MadeRows, extract, small_plan

Q = "bins/64x64/levels/p5/q"
RAISES, FILLS, OTHER = "raises", "fills", "other numbers"
EMPTY_SHARD = RAISES if tuple(map(int, zarr.__version__.split(".")[:2])) >= (3, 4) else FILLS
"""zarr-python 3.1.6 takes it for a shard that was never written, 3.4.2 does not."""
Array = np.ndarray


@pytest.fixture
def path(tmp_path: Path) -> Path:
    one_bin = (Bin(height_px=64, width_px=64, rows=4, shard_rows=2),)
    rows = MadeRows(small_plan(bins=one_bin), skipped=frozenset())
    extract(tmp_path, rows)
    return tmp_path / rows.plan.folder_name


def shard(path: Path, number: int = 0) -> Path:
    return path / Q / f"c/{number}/0/0/0"


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def swap(path: Path) -> None:
    first, second = shard(path), shard(path, 1)
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def edit_metadata(path: Path) -> None:
    file = path / Q / "zarr.json"
    file.write_text(file.read_text().replace('"int8"', '"uint8"').replace("-128", "0"))


def by_zarr(path: Path) -> Array:
    return np.asarray(zarr.open_array(path / Q, mode="r")[...])


def by_tensorstore(path: Path) -> Array:
    tensorstore = pytest.importorskip("tensorstore")
    kvstore = {"driver": "file", "path": f"{path / Q}/"}
    opened = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True, read=True).result()
    found: Array = opened.read().result()
    return found


def outcome(read: Callable[[Path], Array], path: Path, expected: Array) -> str:
    try:
        found = read(path)
    except ValueError:
        return RAISES
    if found.dtype == expected.dtype and (found[:2] == -128).all():
        return FILLS
    return "right" if np.array_equal(found, expected) else OTHER


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("fault", "zarr_python", "tensorstore"),
    [
        (lambda path: flip(shard(path), 0), RAISES, RAISES),
        (lambda path: flip(shard(path), -6), RAISES, RAISES),
        (lambda path: shard(path).write_bytes(shard(path).read_bytes()[:-30]), RAISES, RAISES),
        (lambda path: shard(path).write_bytes(b""), EMPTY_SHARD, RAISES),
        (lambda path: shard(path).unlink(), FILLS, FILLS),
        (swap, OTHER, OTHER),
        (edit_metadata, OTHER, OTHER),
    ],
    ids=["flipped chunk", "flipped index", "truncated", "empty", "deleted", "swapped", "edited zarr.json"],
)
def test_other_clients(fault: Callable[[Path], None], zarr_python: str, tensorstore: str, path: Path) -> None:
    expected = by_zarr(path)
    fault(path)
    assert outcome(by_zarr, path, expected) == zarr_python
    assert outcome(by_tensorstore, path, expected) == tensorstore
    with pytest.raises(IntegrityError), open_store(path) as store:
        store.read_encoded(list(range(len(store))))
