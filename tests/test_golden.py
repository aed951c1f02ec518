"""Stores that earlier releases wrote, read through three doors: ours, zarr-python's and tensorstore's."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from stores import open_store, verify_store
from stores.checks.verify import store_status

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(file.stem for file in FOLDER.glob("*.npz"))
MANIFEST_SHA256 = {
    "layout-all": "93cae3335943c24b5d393ae684919bbdfd7a25d0834477755d3d033dcd7475de",
    "layout-chunk-digests": "ea5a8ead6c968bc3a1154ddb33627dfaa0a11089c6aa9793ad9975da3d91adad",
    "layout-blake3": "02e28798b9782ec05c7cc61b051e5064b762109571c893245d4a6a542cbb4ea9",
    "layout-consolidated": "7fdf24e875144743305e392c2dcb39190d52d4b29a5f7de016437967297afe9f",
    "layout-flat-keys": "a2b8010bcea53b1acf583cac4377c1bf131bd5f77e80735cffe9b21da301b717",
    "layout-names": "d99b458da9ef773d9dd97320deb025aa21ba1a02f48bf2580348d96a539cd8aa",
    "layout-packed": "ece848a1e4bad08fecbdb4a63e1d2661060dc959e837be985d3a07a9bc42a658",
    "blocks-float16": "cf06ebe901e345928432982fd3e776ddeb96728ab7a96415e425d868b14becee",
    "clips-int8": "2cd25c0e0128dd4a7197b1e366fb66eae36bda331a307617cb4556266b190ebd",
    "images-float16": "62308bbb37c5b1730668b70d3cd1ec7386b261e09afa7cd1d17de9d3c5d2f20f",
    "images-int4": "8b1c0dba36cbab49a2eca81de37a142c9c787b203ff4bb87ca70896a336775d5",
    "pixels-float16": "e48d41a5fad699c3320a2b1202b249969ea97c97acf414b58c77a393558697df",
    "pooled-float16": "c20fd84b07133d4ef1d9564c3263eb19e6c50d0f0378b8d04be99761e0629c7c",
    "images-q2": "66f5ecf6728c789f7b9b702656eabe8516fe796915ad43570e23aa16ce6971d4",
    "images-int8": "28616fc3cadf445df0aa1850357bbcbe143e0b471a51124a152eca7c2dd36ae7",
}

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def path(name: str) -> Path:
    return FOLDER / name


@pytest.fixture(scope="module")
def expected(name: str) -> dict[str, Array]:
    """Every array that was planned, by its path in the store."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def array_paths(path: Path) -> set[str]:
    """By the metadata on the disk."""
    files = path.rglob("zarr.json")
    return {
        file.parent.relative_to(path).as_posix()
        for file in files
        if json.loads(file.read_bytes())["node_type"] == "array"
    }


def is_made_by_the_committer(array_path: str) -> bool:
    """Outcomes, sources, checksums and lengths: they follow from the rest, and verification compares them."""
    return array_path in ("rows/outcome", "rows/source") or array_path.endswith(("crc", "_bytes"))


def test_there_are_golden_stores() -> None:
    assert {"images-int8", "images-float16", "images-int4", "clips-int8"} <= set(NAMES)


def test_nothing_was_changed(name: str, path: Path) -> None:
    report = verify_store(path, full=True, manifest_digest=MANIFEST_SHA256[name])
    assert report.ok, report.problems
    status = store_status(path)
    assert status.complete and status.missing == () and status.rows == status.written + 1
    assert [(code, reason) for _, _, code, reason in status.skipped] == [(1, "not an image")]


def assert_arrays(found: dict[str, Array], path: Path, expected: dict[str, Array]) -> None:
    assert found.keys() == array_paths(path)
    assert {each for each in found if not is_made_by_the_committer(each)} == expected.keys()
    for each, array in expected.items():
        assert found[each].dtype == array.dtype, each
        np.testing.assert_array_equal(found[each], array, err_msg=each)
    assert np.count_nonzero(found["rows/outcome"]) == 1


def test_zarr_python_reads_every_array(path: Path, expected: dict[str, Array]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it mentions plan.json and receipts/, which are not its business
        members = dict(zarr.open_group(path, mode="r").members(max_depth=None))
    found = {each: np.asarray(m[...]) for each, m in members.items() if isinstance(m, zarr.Array)}
    assert_arrays(found, path, expected)
    folders = {parent.as_posix() for each in found for parent in Path(each).parents} - {"."}
    assert {each for each, member in members.items() if isinstance(member, zarr.Group)} == folders


@pytest.mark.oracle
def test_tensorstore_reads_every_array(path: Path, expected: dict[str, Array]) -> None:
    tensorstore = pytest.importorskip("tensorstore")
    found = {}
    for each in array_paths(path):
        kvstore = {"driver": "file", "path": f"{path / each}/"}
        opened = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True, read=True).result()
        found[each] = opened.read().result()
    assert_arrays(found, path, expected)


def bin_rows(expected: dict[str, Array], index: int) -> list[int]:
    """The planned rows of a bin."""
    return np.flatnonzero(expected["rows/bin"] == index).tolist()


def test_we_read_every_row(path: Path, expected: dict[str, Array]) -> None:
    with open_store(path) as store:
        rows = {(store.keys[row], int(store.views[row])): row for row in range(len(store))}
        assert len(rows) == len(store) == len(expected["rows/view"]) - 1
        for index, b in enumerate(store.plan.bins):
            for local, planned in enumerate(bin_rows(expected, index)):
                key = bytes(expected["rows/key"][planned]).rstrip(b"\0").decode()
                row = rows.get((key, int(expected["rows/view"][planned])))
                if row is not None:
                    assert_row(store, row, f"bins/{b.name}", local, expected)
                    for column in ("params", "padded_hw", "valid_hw", "original_hw"):
                        table = expected[f"rows/{column}"]
                        np.testing.assert_array_equal(getattr(store, column)[row], table[planned])


def decode_row(codec_name: str, parts: dict[str, Array]) -> Array:
    """One level of a row, as docs/store-format.md words it."""
    x = parts["q"].astype(np.float32)
    if codec_name.startswith("q"):
        exact = {name: array.astype(np.float64) for name, array in parts.items()}
        code = exact["q"] + 255 * exact["q_high"]
        scale = exact["deviation"] * exact["step"]
        return (exact["mean"] + scale * (code @ exact["rotation"].T)).astype(np.float32)
    if codec_name == "int4":
        nibbles = np.stack([parts["q"] % 16, parts["q"] // 16], axis=-1)
        codes = np.where(nibbles < 8, nibbles, nibbles - 16.0).reshape(*x.shape[:-1], -1)
        steps = np.repeat(parts["block"] + np.float32(1), 32, axis=-1)
        channels = parts["scale"].shape[-1]
        x = codes[..., :channels].astype(np.float32) * steps[..., :channels]
    return x * parts["scale"][..., None, None, :] if "scale" in parts else x


def state_of(level: str, expected: dict[str, Array]) -> dict[str, Array]:
    """What the codec was fitted to, of one level."""
    paths = [path for path in expected if path.startswith("codec/") and path.split("/")[2] == level]
    return {path.rpartition("/")[2]: expected[path] for path in paths}


def decode_pixels(stored: Array) -> Array:
    """As docs/store-format.md words it."""
    red, green, blue = np.moveaxis(np.cumsum(stored.astype(np.int64), axis=1), -1, 0)
    return (np.stack([red + green, green, blue + green], axis=-1) % 256).astype(np.uint8)


def assert_row(store: Any, row: int, folder: str, local: int, expected: dict[str, Array]) -> None:
    encoded, decoded = store.read_encoded([row]), store.read_features([row])
    for level in store.levels:
        for kind, array in encoded[level].items():
            np.testing.assert_array_equal(array[0], expected[f"{folder}/levels/{level}/{kind}"][local])
        parts = {kind: array[0] for kind, array in encoded[level].items()}
        if store.codec.startswith("q"):
            parts |= state_of(level, expected)
        x = decode_row(store.codec, parts)
        np.testing.assert_array_equal(decoded[level][0], np.moveaxis(x, -1, -3))
    for name, array in store.read_targets([row])[0].items():
        stored = expected[f"{folder}/targets/{name}"][local].reshape(-1).view(np.uint8)
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        np.testing.assert_array_equal(flat, stored[: len(flat)])
        assert not stored[len(flat) :].any()  # padding of a ragged row
    if store.plan.pixels:
        stored = expected[f"{folder}/pixels"][local]
        pixels = decode_pixels(stored) if "pixel-differences" in store.plan.required_features else stored
        np.testing.assert_array_equal(store.read_pixels([row])[0], pixels)
