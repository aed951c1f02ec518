"""Stores as xarray trees: the values of zarr-python, read lazily and checked."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

from stores import open_store
from stores.errors import IntegrityError
from stores.format.plan import DenseTarget, RaggedTarget
from tests.faults.made_stores import TARGETS, MadeRows, extract, small_plan

xr = pytest.importorskip("xarray")

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES = sorted(file.stem for file in GOLDEN.glob("*.npz"))


def zarr_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array by its path, as zarr-python returns it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        members = dict(zarr.open_group(path, mode="r").members(max_depth=None))
    return {name: np.asarray(m[...]) for name, m in members.items() if isinstance(m, zarr.Array)}


def tree_arrays(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    return {
        f"{node.path}/{name}".removeprefix("/"): array
        for node in tree.subtree
        for name, array in node.data_vars.items()
    }


def assert_equal_to_zarr(path: Path) -> None:
    expected = zarr_arrays(path)
    with open_store(path) as store:
        found = tree_arrays(store.xarray())
        assert found.keys() == expected.keys()
        for name, array in found.items():
            assert array.dtype == expected[name].dtype, name
            np.testing.assert_array_equal(array.values, expected[name], err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_old_stores_have_the_values_of_zarr_python(name: str) -> None:
    assert_equal_to_zarr(GOLDEN / name)


def test_targets_of_many_shapes(tmp_path: Path) -> None:
    """Dimensions that have one name and several lengths in the store."""
    targets = (
        *TARGETS,
        DenseTarget("pair", "float32", (2,)),
        DenseTarget("grid", "int16", (3, 5)),
        DenseTarget("number", "int64", ()),
        RaggedTarget("boxes", "float32", (-1, 4), 48),
    )
    rows = MadeRows(small_plan(targets=targets, pixels=True))
    extract(tmp_path, rows)
    path = tmp_path / rows.plan.folder_name
    assert_equal_to_zarr(path)
    with open_store(path) as store:
        tree = store.xarray()
        folder = tree["bins/32x64/targets"]
        assert folder["original_labels"].dims == ("row", "original_labels_byte")
        assert folder["boxes"].dims == ("row", "boxes_byte")
        assert (folder["pair"].dims, folder["grid"].dims) == (
            ("row", "dim_0"),
            ("row", "grid_dim_0", "dim_1"),
        )
        assert tree["rows/key"].dims == ("row", "key_byte")
        assert tree["rows/source"].dims == ("row", "digest_byte")
        assert tree["bins/32x64/pixels"].dims == ("row", "pixel_y", "pixel_x", "colour")


def test_attributes_say_how_to_decode() -> None:
    with open_store(GOLDEN / "images-int8") as store:
        tree = store.xarray()
        assert tree.attrs["identity"] == store.identity
        for row in range(len(store)):
            level = next(iter(store.pyramid))
            node = tree[f"bins/{store.bins[row]}/levels/{level.name}"]
            q = node["q"]
            assert q.attrs["decode"] == "value = q * scale"
            assert (q.attrs["level"], q.attrs["stride_px"]) == (level.name, level.stride_px)
            assert (q.attrs["codec"], q.attrs["layout"]) == ("int8", "row, y, x, channel")
            planned = (tree["rows"]["record"] == store.keys[row]) & (tree["rows"]["view"] == store.views[row])
            at = int(np.flatnonzero(node["plan_row"].values == int(np.flatnonzero(planned)[0]))[0])
            value = q.astype("float32") * node["scale"]
            np.testing.assert_array_equal(
                value.transpose("row", "channel", "y", "x")[at], store.read_features([row])[level.name][0]
            )


@pytest.mark.parametrize(
    "key",
    [
        {"row": 2},
        {"row": slice(None, None, -1), "y": 0},
        {"row": [2, 0, 0], "channel": [2, 1]},
        {"row": slice(1, 2), "y": slice(0, 1), "x": 0},
        {"row": [], "channel": 0},
        {"row": -1, "x": [-1, 0], "channel": slice(None, None, -2)},
    ],
)
def test_every_way_of_indexing(key: dict[str, object], tmp_path: Path) -> None:
    rows = MadeRows(small_plan())
    extract(tmp_path, rows)
    path = tmp_path / rows.plan.folder_name
    whole = xr.DataArray(
        zarr_arrays(path)["bins/64x32/levels/p5/q"], dims=("row", "y", "x", "channel")
    )  # with a skipped row
    with open_store(path) as store:
        q = store.xarray()["bins/64x32/levels/p5/q"].drop_vars("plan_row")
        xr.testing.assert_equal(q.isel(key), whole.isel(key))
    with pytest.raises(ValueError, match="was closed"):
        _ = q.values


def test_damage_raises_where_zarr_python_returns_fills(tmp_path: Path) -> None:
    rows = MadeRows(small_plan())
    extract(tmp_path, rows)
    path = tmp_path / rows.plan.folder_name
    (path / "bins/32x64/levels/p5/q/c/0/0/0/0").unlink()
    with open_store(path) as store:
        q = store.xarray()["bins/32x64/levels/p5/q"]  # nothing is read yet
        assert q[2].shape == (1, 2, 3) and q[2].values.any()  # another shard
        with pytest.raises(IntegrityError, match="is missing"):
            _ = q[0].values
    assert (zarr_arrays(path)["bins/32x64/levels/p5/q"][0] == -128).all()


def test_without_xarray_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['xarray'] = None\n"
        "from stores import open_store\n"
        f"open_store({str(GOLDEN / 'images-int8')!r}).xarray()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ImportError: Store.xarray() needs xarray: pip install" in done.stderr
