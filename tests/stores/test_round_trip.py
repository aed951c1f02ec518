"""Every kind of store, written and read back bit-equal by our reader, zarr-python and tensorstore."""

import socket
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stores import open_store
from stores.codecs import codec, needs_state
from stores.format.arrays import all_arrays, bin_tables, sharded_arrays
from stores.format.bounded_files import StoreFolder
from stores.format.pixel_differences import PIXEL_DIFFERENCES, differences, undo_differences
from stores.format.plan import Bin, DenseTarget, RaggedTarget, StorePlan
from stores.pyramid import Level
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import LABELS, ORIGINAL_LABELS, P4, P5, MadeRows, extract, fitted, small_plan

BINS = (
    Bin(height_px=32, width_px=64, rows=11, shard_rows=4, batch_rows=2),
    Bin(height_px=64, width_px=32, rows=7, shard_rows=8),
    Bin(height_px=64, width_px=64, rows=2, shard_rows=1),
)
BOXES = RaggedTarget("boxes", "float32", (-1, 4), 64)
WIDE = Level(name="p3", stride_px=8, channels=35, stage=2)
"""With int4: two blocks and a single last code."""
CLIP_CLASS = DenseTarget("class_index", "int64", ())
FLAGS = DenseTarget("flags", "bool", (3,))
DEPTH = DenseTarget("depth", "float32", ("y", "x"))
SKIPPED = frozenset({(0, 1), (1, 6), (2, 0), (2, 1)})
"""The last row of a partial shard, and a whole bin."""

KINDS = {
    "int8": {"levels": (P4, P5)},
    "float16": {"codec_name": "float16", "levels": (P4, P5)},
    "int4": {"codec_name": "int4", "levels": (P4, P5, WIDE)},
    "q2": {"codec_name": "q2", "levels": (P4, P5, WIDE)},
    "q5 video": {"codec_name": "q5", "frames": 3, "targets": (CLIP_CLASS,)},
    "int4 video": {"codec_name": "int4", "frames": 3, "targets": (CLIP_CLASS,)},
    "video": {"frames": 3, "targets": (CLIP_CLASS, FLAGS, DEPTH), "pixels": True},
    "boxes": {"targets": (LABELS, ORIGINAL_LABELS, BOXES), "pixels": True},
    "bare": {"targets": ()},
    "differences": {"targets": (), "pixels": True, "required_features": (PIXEL_DIFFERENCES,)},
}


@dataclass(frozen=True)
class Made:
    rows: MadeRows
    path: Path

    @property
    def plan(self) -> StorePlan:
        return self.rows.plan


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    plan = small_plan(**KINDS[request.param], bins=BINS)
    rows = MadeRows(fitted(plan) if needs_state(codec(plan.codec)) else plan, skipped=SKIPPED)
    root = tmp_path_factory.mktemp(request.param)
    extract(root, rows)
    return Made(rows, root / plan.folder_name)


def plain_differences(pixels: np.ndarray) -> np.ndarray:
    """Pixel by pixel, as docs/store-format.md defines it."""
    found = np.empty_like(pixels)
    for y, x in np.ndindex(pixels.shape[:2]):
        left = [int(value) for value in pixels[y, x - 1]] if x else [0, 0, 0]
        red, green, blue = (int(value) for value in pixels[y, x])
        found[y, x] = [
            (red - green - left[0] + left[1]) % 256,
            (green - left[1]) % 256,
            (blue - green - left[2] + left[1]) % 256,
        ]
    return found


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.just(3))))
def test_differences_are_undone(pixels):
    stored = differences(pixels)
    np.testing.assert_array_equal(stored[0], plain_differences(pixels[0]))
    np.testing.assert_array_equal(undo_differences(stored), pixels)


def planned_array(made: Made, bin_index: int, name: str) -> np.ndarray:
    """The whole array as any reader must return it, with fill values in the holes."""
    spec = sharded_arrays(made.plan, bin_index)[name]
    whole = np.full(spec.shape, spec.fill, spec.dtype)
    for place, copy in zip(made.rows.written(), list(made.rows.copies().values()), strict=True):
        if place[0] == bin_index:
            flat = np.zeros(spec.row_bytes, np.uint8)
            copied = copy[name]
            if name == "pixels" and made.plan.pixel_differences:
                copied = plain_differences(copied)
            stored = np.ascontiguousarray(copied).reshape(-1).view(np.uint8)
            flat[: len(stored)] = stored
            whole[place[1]] = flat.view(spec.dtype).reshape(spec.row_shape)
    return whole


def test_our_reader_returns_the_rows_put(made):
    with open_store(made.path, threads=2) as store:
        copies = list(made.rows.copies().values())
        assert len(store) == len(copies)
        for index, b in enumerate(made.plan.bins):
            rows = [i for i in range(len(store)) if store.bins[i] == b.name][::-1]  # not in their order
            if not rows:
                continue
            encoded, targets = store.read_encoded(rows), store.read_targets(rows)
            decoded = store.read_features(rows)
            pixels = store.read_pixels(rows) if made.plan.pixels else None
            for at, row in enumerate(rows):
                found = {f"levels/{lv}/{k}": a[at] for lv, kinds in encoded.items() for k, a in kinds.items()}
                found |= {f"targets/{name}": array for name, array in targets[at].items()}
                if pixels is not None:
                    found["pixels"] = pixels[at]
                assert found.keys() == copies[row].keys()
                for name, array in found.items():
                    assert array.dtype == copies[row][name].dtype, name
                    np.testing.assert_array_equal(array, copies[row][name], err_msg=name)
                for level, x in made.rows.encoded(index, int(store._local_of[row])).items():
                    nchw = np.moveaxis(made.rows.plan.level_codec(level).decode(x), -1, -3)
                    np.testing.assert_array_equal(decoded[level][at], nchw)
                    assert decoded[level].dtype == np.float32


def test_row_metadata_equal_the_plan(made):
    with open_store(made.path) as store:
        plan, planned = store.plan, made.plan
        assert plan.identity == planned.identity and plan.bins == planned.bins
        assert plan.targets == planned.targets and plan.pyramid == planned.pyramid
        assert (plan.frames, plan.pixels, plan.view_params) == (
            planned.frames,
            planned.pixels,
            ("scale", "flip"),
        )
        assert plan.folder_name == planned.folder_name == store.path.name
        places = made.rows.written()
        rows = [planned.global_row(*place) for place in places]
        assert store.keys == tuple(planned.rows.keys[row] for row in rows)
        for name, column in (
            ("views", planned.rows.view),
            ("params", planned.rows.params),
            ("padded_hw", planned.rows.padded_hw),
            ("valid_hw", planned.rows.valid_hw),
            ("original_hw", planned.rows.original_hw),
        ):
            np.testing.assert_array_equal(getattr(store, name), column[rows], err_msg=name)
        assert store.bins == tuple(planned.bins[bin_index].name for bin_index, _ in places)
        assert [bytes(s) for s in store.source_sha256] == [made.rows.source_sha256(*p) for p in places]
        skipped = sorted(planned.global_row(*place) for place in SKIPPED)
        assert store.skipped == [
            (planned.rows.keys[row], int(planned.rows.view[row]), 1, "not an image") for row in skipped
        ]


def test_zarr_python_reads_every_array(made):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of plan.json and receipts/, which are not Zarr
        members = dict(zarr.open_group(str(made.path), mode="r").members(max_depth=None))
    arrays = {name: m for name, m in members.items() if isinstance(m, zarr.Array)}
    assert arrays.keys() == {spec.path for spec in all_arrays(made.plan)}
    groups = {name for name, member in members.items() if isinstance(member, zarr.Group)}
    parents = {str(parent) for name in arrays for parent in Path(name).parents} - {"."}
    assert groups == parents
    for index, b in enumerate(made.plan.bins):
        for name, spec in sharded_arrays(made.plan, index).items():
            array = arrays[spec.path]
            assert array.metadata.dimension_names == spec.dims
            np.testing.assert_array_equal(array[...], planned_array(made, index, name), err_msg=spec.path)
        for name, spec in bin_tables(made.plan, index).items():
            raw = StoreFolder(made.path).read_exactly(spec.chunk_file(), spec.total_bytes)
            table = np.frombuffer(raw, spec.dtype)
            np.testing.assert_array_equal(arrays[f"bins/{b.name}/{name}"][...], table)
    np.testing.assert_array_equal(arrays["rows/view"][...], made.plan.rows.view)
    keys = [bytes(key).rstrip(b"\0").decode() for key in arrays["rows/key"][...]]
    assert tuple(keys) == made.plan.rows.keys


@pytest.mark.oracle
def test_tensorstore_reads_every_array(made):
    tensorstore = pytest.importorskip("tensorstore")

    def read(path):
        kvstore = {"driver": "file", "path": str(made.path / path)}
        return tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True).result().read().result()

    for index in range(len(made.plan.bins)):
        for name, spec in sharded_arrays(made.plan, index).items():
            np.testing.assert_array_equal(
                read(spec.path), planned_array(made, index, name), err_msg=spec.path
            )
    np.testing.assert_array_equal(read("rows/params"), made.plan.rows.params)
    assert np.count_nonzero(read("rows/outcome")) == len(SKIPPED)


def test_no_file_holds_time_host_or_path(made):
    for file in made.path.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert socket.gethostname().encode() not in data or len(socket.gethostname()) < 4
            assert str(made.path.parent).encode() not in data


def test_the_bytes_do_not_depend_on_the_order_of_rows(tmp_path):
    """Offsets of features are fixed; compressed rows are written in row order."""
    plan = small_plan(bins=BINS, pixels=True)
    rows = MadeRows(plan, skipped=SKIPPED)
    orders = [lambda r: r, lambda r: r[::-1], lambda r: [*r[1::2], *r[0::2]]]
    contents = []
    for number, order in enumerate(orders):
        writer = StoreWriter.open_or_create(tmp_path / str(number), plan)
        for shard in writer.pending():
            shard_writer = writer.open_shard(shard)
            for row in order(list(shard_writer.rows)):
                place = shard.bin, row
                source = rows.source_sha256(*place)
                if place in SKIPPED:
                    shard_writer.skip(row, 1, "not an image", source_sha256=source)
                else:
                    targets, pixels = rows.targets(*place), rows.pixels(*place)
                    encoded = rows.encoded(*place)
                    shard_writer.put(row, encoded, targets, source_sha256=source, pixels=pixels)
            shard_writer.commit({}, {})
        writer.finish()
        files = sorted(p for p in writer.path.rglob("*") if p.is_file() and "receipts" not in p.parts)
        contents.append(
            {p.relative_to(writer.path): p.read_bytes() for p in files if p.name != "MANIFEST.json"}
        )
    assert contents[0] == contents[1] == contents[2]
