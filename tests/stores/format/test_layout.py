"""Layout of new stores, read by stock zarr-python, xarray and tensorstore."""

from __future__ import annotations

import json
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from stores import StoreWriter, open_store, verify_store
from stores.errors import IntegrityError
from stores.format import arrays
from stores.format.arrays import metadata_files
from stores.format.canonical_json import canonical_json, sha256_hex
from stores.format.features import NAMES
from stores.format.pixel_differences import PIXEL_DIFFERENCES
from stores.format.plan import DenseTarget, RaggedTarget
from stores.reading.xarray_engine import StoreBackend
from tests.faults.made_stores import NEW_LAYOUT, P4, P5, TARGETS, MadeRows, extract, fill_shards, small_plan
from tests.faults.outcomes import assert_reads_back
from tests.unsynced import unsynced  # noqa: F401 - a fixture of this module

xr = pytest.importorskip("xarray")

MANY_TARGETS = (
    *TARGETS,
    DenseTarget("grid", "int16", (3, 5)),
    DenseTarget("other", "float32", (2,)),
    DenseTarget("number", "int64", ()),
    RaggedTarget("boxes", "float32", (-1, 4), 48),
)
NEW = {
    "required_features": (*NEW_LAYOUT["required_features"], PIXEL_DIFFERENCES),
    "optional_features": NEW_LAYOUT["optional_features"],
    "pixels": True,
}
ROWS = MadeRows(
    small_plan(
        levels=(P4, P5),
        targets=MANY_TARGETS,
        data_licence="CC BY 4.0",
        weights_licence="dinov3-license",
        **NEW,
    )
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("new")
    extract(root, ROWS)
    return root / ROWS.plan.folder_name


@pytest.fixture(autouse=True)
def no_warning() -> None:
    warnings.simplefilter("error")


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our entry point is installed, as pyproject.toml has it."""
    pyproject = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    (entry,) = pyproject["project"]["entry-points"]["xarray.backends"].items()
    info = tmp_path / "of_ours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: of-ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[xarray.backends]\n{entry[0]} = {entry[1]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    xr.backends.refresh_engines()
    yield
    monkeypatch.undo()
    xr.backends.refresh_engines()


def test_xarray_guesses_the_engine_of_a_store(path: Path, tmp_path: Path, engines: None) -> None:
    warnings.simplefilter("ignore")  # of groups, whose metadata is consolidated in the root
    expected = xr.open_datatree(path, engine="zarr")
    for store in (path, str(path), f"{path}/"):
        assert xr.open_datatree(store).identical(expected)
    assert xr.open_dataset(path / "rows").identical(xr.open_zarr(path / "rows"))
    group = path / "bins" / "32x64" / "levels" / "p4"
    assert xr.open_dataset(group).identical(xr.open_zarr(group))
    for other in (tmp_path, tmp_path / "none", path / "plan.json", "https://host/store"):
        assert not StoreBackend().guess_can_open(other)
    (tmp_path / "link.zarr").symlink_to(path)
    assert xr.open_datatree(tmp_path / "link.zarr").identical(expected), "without us by a name alone"


def test_stock_xarray_opens_the_rows_and_the_whole_store(path: Path) -> None:
    rows = xr.open_zarr(path / "rows")
    assert rows["key"].dims == ("row", "key_byte") and rows["source"].dims == ("row", "digest_byte")
    tree = xr.open_datatree(path, engine="zarr")
    q = tree["bins/32x64/levels/p4/q"]
    assert q.attrs == {
        "decode": "value = q * scale",
        "codec": "int8",
        "level": "p4",
        "stride_px": 16,
        "stage": 3,
        "layout": "row, y, x, channel",
    }
    with open_store(path) as store:
        scale = tree["bins/32x64/levels/p4/scale"].values
        values = q.values * scale[:, None, None]
        np.testing.assert_array_equal(store.read_features([0])["p4"][0], np.moveaxis(values[0], -1, 0))
        ours = store.xarray()
        assert {node.path for node in tree.subtree} == {node.path for node in ours.subtree}
        for node in tree.subtree:
            for name, array in node.data_vars.items():
                of_ours = ours[f"{node.path}/{name}"]
                assert (of_ours.dims, of_ours.attrs) == (array.dims, array.attrs)
                np.testing.assert_array_equal(of_ours.values, array.values)


@pytest.mark.oracle
def test_tensorstore_and_zarr_read_the_same(path: Path) -> None:
    tensorstore = pytest.importorskip("tensorstore")
    members = dict(zarr.open_group(path, mode="r").members(max_depth=None))
    found = {name: array for name, array in members.items() if isinstance(array, zarr.Array)}
    assert found.keys() == {spec.path for spec in arrays.all_arrays(ROWS.plan)}
    for name, array in found.items():
        kvstore = {"driver": "file", "path": f"{path / name}/"}
        opened = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True, read=True).result()
        np.testing.assert_array_equal(opened.read().result(), array[...], err_msg=name)
        assert opened.domain.labels == array.metadata.dimension_names


def test_every_row_reads_back(path: Path) -> None:
    assert_reads_back(path, ROWS)
    assert verify_store(path, full=True).ok


def test_no_folder_a_shard(path: Path) -> None:
    assert {file.name for file in (path / "bins/32x64/levels/p4/q").iterdir()} == {
        "zarr.json",
        "c.0.0.0.0",
        "c.1.0.0.0",
    }
    assert (path / "rows/view/c.0").is_file()


def test_the_readme_says_what_the_store_is_of(path: Path) -> None:
    text = (path / "README.md").read_text()
    assert "dinov3-license" in text
    assert "CC BY 4.0" in text and ROWS.plan.identity_digest in text and "targets: labels" in text
    (path / "README.md").write_text(text + " ")
    problem = verify_store(path).problems[0]
    (path / "README.md").write_text(text)
    assert "README.md" in problem.what and problem.repair.value == "commit"


def test_metadata_that_would_be_large_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metadata_files(ROWS.plan)
    size = len(canonical_json(whole["zarr.json"]))
    assert whole["zarr.json"]["consolidated_metadata"]["metadata"].keys() == {
        path.removesuffix("/zarr.json") for path in whole if path != "zarr.json"
    }
    monkeypatch.setattr(arrays, "MAX_CONSOLIDATED_BYTES", size)
    less = metadata_files(ROWS.plan)
    assert "consolidated_metadata" not in less["zarr.json"]
    assert "consolidated_metadata" in less["rows/zarr.json"]


def test_repeated_metadata_that_contradict_the_plan_are_refused(tmp_path: Path) -> None:
    """With digests that were edited too: another reader would return other numbers."""
    extract(tmp_path, ROWS)
    path = tmp_path / ROWS.plan.folder_name
    for file, array in ((path / "zarr.json", "rows/view"), (path / "rows/zarr.json", "view")):
        sound, manifest = file.read_bytes(), (path / "MANIFEST.json").read_bytes()
        content = json.loads(sound)
        content["consolidated_metadata"]["metadata"][array]["data_type"] = "uint32"
        file.write_bytes(canonical_json(content))
        bound = json.loads(manifest)
        bound["files"][file.relative_to(path).as_posix()] = sha256_hex(file.read_bytes())
        (path / "MANIFEST.json").write_bytes(canonical_json(bound))
        with pytest.raises(IntegrityError, match="data_type"):
            open_store(path)
        file.write_bytes(sound)
        (path / "MANIFEST.json").write_bytes(manifest)
    open_store(path).close()


def test_a_store_begun_in_the_old_layout_is_finished_in_it(tmp_path: Path) -> None:
    old = MadeRows(small_plan(levels=(P4, P5), required_features=(PIXEL_DIFFERENCES,), pixels=True))
    new = MadeRows(replace(old.plan, required_features=NEW["required_features"], optional_features=(NAMES,)))
    writer = StoreWriter.open_or_create(tmp_path, old.plan)
    assert writer.plan.features == {PIXEL_DIFFERENCES}
    fill_shards(tmp_path, new)
    assert StoreWriter.open_or_create(tmp_path, new.plan).plan.features == {PIXEL_DIFFERENCES}
    StoreWriter.open_or_create(tmp_path, new.plan).finish()
    path = tmp_path / old.plan.folder_name
    assert_reads_back(path, old)
    assert verify_store(path, full=True).ok and not (path / "README.md").exists()
    assert (path / "bins/32x64/levels/p4/q/c/0/0/0/0").is_file()
