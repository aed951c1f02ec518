"""A store as a sequence: rows by number, slice, mask, list, array and tensor; single rows; iteration."""

import numpy as np
import pytest
import torch
import zarr

from stores import open_store
from stores.errors import MixedBins
from stores.reading import reader
from stores.reading.row_numbers import row_numbers
from tests.faults.made_stores import P4, P5, MadeRows, extract, small_plan
from tests.stores.conftest import ONE_BIN

EVEN = np.arange(11) % 2 == 0  # the store of `path` has 11 written rows
WRITTEN = list(range(11))
WAYS = {
    "slice": (slice(2, 9, 3), [2, 5, 8]),
    "open slice": (slice(None), WRITTEN),
    "backward slice": (slice(-1, -4, -1), [10, 9, 8]),
    "slice beyond the end": (slice(9, 99), [9, 10]),
    "range": (range(3), [0, 1, 2]),
    "negative numbers": ([-1, 0, -11], [10, 0, 0]),
    "list of booleans": (EVEN.tolist(), WRITTEN[::2]),
    "mask": (EVEN, WRITTEN[::2]),
    "tensor mask": (torch.from_numpy(EVEN), WRITTEN[::2]),
    "array": (np.array([7, 1], np.uint8), [7, 1]),
    "negative int8": (np.array([-2], np.int8), [9]),
    "tensor": (torch.tensor([4, 4, -1]), [4, 4, 10]),
    "tensor of int32": (torch.tensor([3], dtype=torch.int32), [3]),
    "list of tensors": ([torch.tensor(2), torch.tensor(6)], [2, 6]),
    "tuple": ((1, 2), [1, 2]),
    "no rows": ([], []),
    "empty tensor": (torch.tensor([]), []),
    "mask of none": (np.zeros(11, bool), []),
}


@pytest.fixture(scope="module")
def two_bins(tmp_path_factory):
    made, root = MadeRows(small_plan()), tmp_path_factory.mktemp("two-bins")
    extract(root, made)
    return root / made.plan.folder_name


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    made = MadeRows(small_plan(bins=ONE_BIN, levels=(P4, P5), frames=3), skipped=frozenset())
    root = tmp_path_factory.mktemp("clips")
    extract(root, made)
    return root / made.plan.folder_name


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_name_rows(path, way):
    asked, numbers = WAYS[way]
    with open_store(path) as store:
        expected = store.read_features(np.array(numbers, np.int64))
        for found in (store.read_features(asked), store[asked]):
            assert {level: array.shape for level, array in found.items()} == {
                "p4": (len(numbers), 2, 4, 4),
                "p5": (len(numbers), 3, 2, 2),
            }
            for level, array in found.items():
                assert array.dtype == np.float32 and np.array_equal(array, expected[level])
        targets, wanted = store.read_targets(asked), store.read_targets(numbers)
        assert len(targets) == len(numbers)
        for row, other in zip(targets, wanted, strict=True):
            assert all(np.array_equal(row[name], other[name]) for name in ("labels", "original_labels"))
        if numbers:
            assert np.array_equal(store.read_pixels(asked), store.read_pixels(numbers))


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (11, IndexError, "rows 0 to 10; asked for row 11"),
        ([0, -12], IndexError, "rows 0 to 10; asked for row -12"),
        (np.array([2**63], np.uint64), IndexError, "asked for row 9223372036854775808"),
        ([0, 2**70], IndexError, "asked for row 1180591620717411303424"),
        (EVEN[:10], IndexError, "a mask of 10 rows, expected one of 11"),
        ([1.5], TypeError, "rows are float64"),
        (torch.tensor([1.0]), TypeError, "rows are float32"),
        (["record-1"], TypeError, r"text; store.row_of\(key, view\)"),
        ("record-1", TypeError, r"text; store.row_of\(key, view\)"),
        (True, TypeError, "rows are bool"),
        (None, TypeError, "given as NoneType"),
        ({1, 2}, TypeError, "given as set"),
        ((row for row in (1, 2)), TypeError, "given as generator"),
        ([[1], [2, 3]], TypeError, "given as list are no array"),
        (torch.ones(2, requires_grad=True), TypeError, "given as Tensor are no array"),
        ([[1, 2], [3, 4]], ValueError, r"shape \(2, 2\), expected one axis"),
    ],
)
def test_invalid_rows(path, asked, error, words):
    with open_store(path) as store:
        for read in (store.read_features, store.read_targets, store.__getitem__):
            with pytest.raises(error, match=words) as caught:
                read(asked)
            assert str(path) in str(caught.value)


def test_numbers_of_an_empty_store():
    assert row_numbers(slice(None), 0, "s").tolist() == row_numbers([], 0, "s").tolist() == []
    with pytest.raises(IndexError, match="s has no rows; asked for row 0"):
        row_numbers([0], 0, "s")


@pytest.mark.parametrize("number", [4, -7, np.int64(4), np.array(4), torch.tensor(4)], ids=repr)
def test_one_number_is_one_row(path, rows, number):
    with open_store(path) as store:
        row = store[number]
        assert (row.key, row.view) == (store.keys[4], int(store.views[4])) and type(row.view) is int
        features, (targets,) = store.read_features([4]), store.read_targets([4])
        assert list(row.features) == ["p4", "p5"] and row.features["p4"].shape == (2, 4, 4)
        for level, array in row.features.items():
            assert array.dtype == np.float32 and array.flags.c_contiguous and array.flags.writeable
            assert np.array_equal(array, features[level][0])
        assert list(row.targets) == ["labels", "original_labels"]
        for name, array in row.targets.items():
            assert array.dtype == targets[name].dtype and np.array_equal(array, targets[name])
        assert store.read_features(number)["p4"].shape == (1, 2, 4, 4)
        with pytest.raises(AttributeError):
            row.key = "another"


def test_rows_of_clips_have_channels_before_time(clips):
    with open_store(clips) as store:
        row, many = store[5], store[[5, 6]]
        assert row.features["p5"].shape == (3, 3, 2, 2) and many["p4"].shape == (2, 3, 2, 4, 4)
        for level, array in row.features.items():
            assert np.array_equal(array, np.moveaxis(many[level][0], 1, 0)) and array.flags.c_contiguous
        assert all(np.array_equal(a.features["p4"], store[at].features["p4"]) for at, a in enumerate(store))


@pytest.mark.parametrize("block_bytes", [1, 200, 1 << 20])
@pytest.mark.parametrize("made", ["path", "two_bins"])
def test_iteration_gives_every_row_in_order(request, monkeypatch, made, block_bytes):
    monkeypatch.setattr(reader, "_BLOCK_BYTES", block_bytes)
    with open_store(request.getfixturevalue(made)) as store:
        found = list(store)
        assert [(row.key, row.view) for row in found] == list(
            zip(store.keys, store.views.tolist(), strict=True)
        )
        for number, row in enumerate(found):
            assert all(np.array_equal(row.features[lv], x[0]) for lv, x in store[[number]].items())
            (targets,) = store.read_targets([number])
            assert all(np.array_equal(row.targets[name], x) for name, x in targets.items())
        arrays = [array for row in found for array in (*row.features.values(), *row.targets.values())]
        assert all(array.base is None or array.base.nbytes == array.nbytes for array in arrays)


@pytest.mark.parametrize(("made", "reads"), [("path", 1), ("two_bins", 2)])
def test_iteration_reads_in_blocks(request, monkeypatch, made, reads):
    with open_store(request.getfixturevalue(made)) as store:
        asked = []
        read = store.read_encoded
        monkeypatch.setattr(store, "read_encoded", lambda rows, *more: asked.append(len(rows)) or read(rows))
        first = next(iter(store))
        assert first.key == store.keys[0]
        assert len(asked) == reads and sum(asked) == len(store)


def test_rows_of_two_bins_have_no_common_shape(two_bins):
    with open_store(two_bins) as store:
        with pytest.raises(MixedBins, match=r"rows of 2 bins in one read \(32x64, 64x32\).*iterate"):
            store[:]
        with pytest.raises(MixedBins, match="no rows were asked for"):
            store[[]]
        of_one = np.array(store.bins) == "32x64"
        assert store[of_one]["p5"].shape == (int(of_one.sum()), 3, 1, 2)


def test_a_closed_store_refuses_every_read(path):
    store = open_store(path)
    assert "closed" not in repr(store)
    store.close()
    reads = (
        lambda: store[0],
        lambda: store[:2],
        lambda: next(iter(store)),
        lambda: store.read_features([]),
        lambda: store.read_targets([0]),
        lambda: store.read_pixels([0]),
        store.zarr,
    )
    for read in reads:
        with pytest.raises(ValueError, match=r"was closed: open_store\(path\) opens it again"):
            read()
    assert repr(store).endswith(", closed)")


def test_the_stock_group_reads_the_codes(path):
    with open_store(path) as store:
        group = store.zarr()
        assert isinstance(group, zarr.Group) and group.read_only
        codes = group["bins/64x64/levels/p4/q"]
        assert np.array_equal(codes[:5], store.read_encoded(range(5))["p4"]["q"])
        with pytest.raises(ValueError, match="read"):
            codes[0] = 1
        assert "UNCHECKED" in type(store).zarr.__doc__


def test_what_stores_and_rows_print(path, two_bins):
    with open_store(path) as store:
        assert repr(store) == (
            f"Store({str(path)!r}, rows: 11 (1 skipped), views: 2, levels: p4, p5, codec: int8, "
            "targets: labels, original_labels, bins: 64x64)"
        )
        assert repr(store[0]) == (
            "Row(key='record-0', view=0, features={p4: float32 (2, 4, 4), p5: float32 (3, 2, 2)}, "
            "targets={labels: uint8 (64, 64), original_labels: uint8 (5, 7)})"
        )
    with open_store(two_bins) as store:
        assert "bins: 32x64, 64x32)" in repr(store)


def test_a_level_may_be_named_alone(path):
    with open_store(path) as store:
        assert list(store.read_features([0], levels="p5")) == ["p5"]
