"""Reading: the caller's memory, refusals, threads, pickling and forks."""

import os
import pickle
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from stores import open_store
from stores.errors import (
    IncompleteStore,
    IntegrityError,
    LevelMissing,
    MixedBins,
    NoSuchStore,
    RowSkipped,
)
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import MadeRows, extract, fill_shard, small_plan
from tests.stores.codecs.encoded_rows import assert_row


@pytest.fixture(scope="module")
def two_bins(tmp_path_factory):
    made, root = MadeRows(small_plan()), tmp_path_factory.mktemp("two-bins")
    extract(root, made)
    return root / made.plan.folder_name


def test_reads_fill_the_callers_memory(path, rows):
    copies = list(rows.copies().values())
    with open_store(path, threads=2) as store:
        out = store.buffers(4)
        addresses = {id(a) for kinds in out.values() for a in kinds.values()}
        for asked in ([0, 3, 3, 10], [7], [], [9, 8, 7, 6]):
            found = store.read_encoded(asked, out=out)
            for level, kinds in found.items():
                for kind, array in kinds.items():
                    assert len(array) == len(asked)
                    assert not len(asked) or np.shares_memory(array, out[level][kind])
            for at, row in enumerate(asked):
                assert_row(found, at, copies[row])
        assert addresses == {id(a) for kinds in out.values() for a in kinds.values()}


def test_levels_are_read_in_the_order_asked(path):
    with open_store(path) as store:
        assert store.levels == ("p4", "p5")
        assert list(store.read_encoded([1], levels=("p5",))) == ["p5"]
        assert list(store.read_features([1], levels=["p4"])) == ["p4"]
        assert list(store.buffers(2, "64x64", ("p5",))) == ["p5"]
        with pytest.raises(LevelMissing, match="holds no level p2; available: p4, p5"):
            store.read_encoded([1], levels=("p2", "p5"))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: a[:1],
        lambda a: a.astype(np.int16),
        lambda a: a[..., ::-1],
        lambda a: a.reshape(len(a), -1),
        lambda a: np.broadcast_to(a[:1], a.shape),
    ],
)
def test_memory_that_does_not_fit_is_refused(path, wrong):
    with open_store(path) as store:
        out = store.buffers(2)
        out["p4"]["q"] = wrong(out["p4"]["q"])
        with pytest.raises(ValueError, match="levels/p4/q"):
            store.read_encoded([0, 1], out=out)


@pytest.mark.parametrize("asked", [[11], [-12], [0, 99]])
def test_rows_that_do_not_exist(path, asked):
    with open_store(path) as store, pytest.raises(IndexError, match="rows 0 to 10"):
        store.read_encoded(asked)


def test_rows_of_two_bins_in_one_read(two_bins):
    with open_store(two_bins) as store:
        assert len(set(store.bins)) == 2
        for read in (store.read_encoded, store.read_features, store.read_targets):
            with pytest.raises(MixedBins, match="32x64, 64x32"):
                read(range(len(store)))
        with pytest.raises(MixedBins, match="name one"):
            store.buffers(3)
        with pytest.raises(KeyError, match="no bin '1x1'"):
            store.buffers(3, "1x1")


def test_rows_by_key(path, rows):
    with open_store(path) as store:
        for row in range(len(store)):
            assert store.row_of(store.keys[row], int(store.views[row])) == row
        hole = rows.plan.rows.keys[5], int(rows.plan.rows.view[5])
        with pytest.raises(RowSkipped, match="not an image"):
            store.row_of(*hole)
        with pytest.raises(KeyError, match="planned without"):
            store.row_of("unknown")


def test_a_hole_is_never_returned(path, rows):
    """Row numbers cannot name one, and the array reader must not return fill values either."""
    with open_store(path) as store:
        reader = store._arrays.reader(0, "levels/p5/q")
        out = memoryview(bytearray(reader.spec.row_bytes))
        for _ in range(2):  # before and after the shard was opened
            with pytest.raises(RowSkipped, match="row 5"):
                reader.read_row(5, out)
            reader.read_row(4, out)


def test_targets_and_pixels_by_name(path, two_bins):
    with open_store(path) as store:
        assert store.targets == ("labels", "original_labels")
        assert [list(found) for found in store.read_targets([0, 1], names=["labels"])] == [["labels"]] * 2
        with pytest.raises(KeyError, match="no target masks"):
            store.read_targets([0], names=["masks"])
        assert store.read_targets([]) == []
    with open_store(two_bins) as store, pytest.raises(LevelMissing, match="no pixels"):
        store.read_pixels([0])


def test_closed_stores_refuse(path):
    store = open_store(path)
    store.read_encoded([0])
    store.close()
    store.close()
    with pytest.raises(ValueError, match="closed"):
        store.read_encoded([0])


@pytest.mark.parametrize("options", [{"verify": "sometimes"}, {"threads": 0}])
def test_impossible_options(path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        open_store(path, **options)


def test_what_is_not_a_store(tmp_path, rows):
    with pytest.raises(NoSuchStore, match="not a folder"):
        open_store(tmp_path / "nothing")
    with pytest.raises(NoSuchStore, match="not a store"):
        open_store(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_store(tmp_path / "nothing")
    writer = StoreWriter.open_or_create(tmp_path, rows.plan)
    fill_shard(writer, writer.pending()[0], rows)
    with pytest.raises(IncompleteStore, match="not finished"):
        open_store(writer.path)


def test_reading_opens_no_receipt(own_path, rows):
    shutil.rmtree(own_path / "receipts")
    with open_store(own_path) as store:
        assert store.skipped and len(store) == len(rows.written())
        assert_row(store.read_encoded([4]), 0, list(rows.copies().values())[4])


def test_reading_imports_neither_zarr_nor_torch(path):
    code = (
        "import sys; from stores import open_store; s = open_store(sys.argv[1]); s.read_features([0]);"
        "s.read_targets([0]); print(sorted({'zarr', 'torch', 'timm', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pickled_stores_are_opened_again(path, rows, own_path):
    copies = list(rows.copies().values())
    with open_store(path, verify="first-epoch", threads=3) as store:
        store.read_encoded([0])
        again = pickle.loads(pickle.dumps(store))
        assert (again.verify, again.manifest_digest) == ("first-epoch", store.manifest_digest)
        assert_row(again.read_encoded([7]), 0, copies[7])
    with open_store(own_path) as other:
        data = pickle.dumps(other)
    manifest = own_path / "MANIFEST.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"not an image", b"not an Image"))
    with pytest.raises(IntegrityError, match="was pickled"):
        pickle.loads(data)


def test_many_threads_read_one_store(path, rows):
    copies = list(rows.copies().values())
    with open_store(path, threads=2) as store, ThreadPoolExecutor(8) as pool:

        def read(seed):
            asked = np.random.default_rng(seed).integers(0, len(store), 5)
            found = store.read_encoded(asked)
            for at, row in enumerate(asked):
                assert_row(found, at, copies[row])

        list(pool.map(read, range(60)))


def test_a_forked_child_reads_with_threads_of_its_own(path, rows):
    with open_store(path, threads=2) as store:
        reader = SimpleNamespace(read_row=lambda row, out: None)
        store._arrays._threads.run([(reader, 0, memoryview(bytearray(1 << 20)))] * 3)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                found = store.read_encoded(range(len(store)))
                assert_row(found, 3, list(rows.copies().values())[3])
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def test_few_descriptors_suffice(path, rows):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = len(os.listdir("/proc/self/fd"))
    copies = list(rows.copies().values())
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        if held > 40:
            pytest.skip("this process holds too many files already")
        with open_store(path, threads=1) as store:
            for row in [*range(len(store)), *range(len(store))]:
                assert_row(store.read_encoded([row]), 0, copies[row])
                assert len(os.listdir("/proc/self/fd")) < held + 20
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == held
