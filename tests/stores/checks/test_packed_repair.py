"""Repair of packed stores: damaged units are extracted again, the other rows packed anew from old shards."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from stores import open_store, verify_store
from stores.checks.garbage import gc_orphans
from stores.checks.problems import Repair
from stores.checks.repair import carry_out, plan_repair
from stores.checks.status import store_status
from stores.errors import IntegrityError
from stores.format.canonical_json import canonical_json
from stores.format.plan import Bin, ShardId
from stores.shards.disk import Files
from stores.shards.receipt_pack import PACK_PATH
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import NEW_LAYOUT, MadeRows, extract, fill_shards, small_plan
from tests.faults.outcomes import assert_reads_back, store_files
from tests.unsynced import unsynced  # noqa: F401 - a fixture of this module

BINS = (
    Bin(height_px=32, width_px=32, rows=11, shard_rows=2),
    Bin(height_px=32, width_px=64, rows=3, shard_rows=2),
)
ROWS = MadeRows(small_plan(bins=BINS, **NEW_LAYOUT), skipped=frozenset({(0, 7), (1, 2)}))
FIRST_BIN = {f"32x32-{shard}" for shard in range(6)}
Q, SCALE = "bins/32x32/levels/p5/q", "bins/32x32/levels/p5/scale/c.0.0"
LABELS = "bins/32x32/targets/labels/c.0.0.0"
SCALE_ROW = 3 * 4 + 4


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pristine")
    extract(root, ROWS)
    return root / ROWS.plan.folder_name


@pytest.fixture
def path(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / pristine.name))


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def repair(path: Path, *, full: bool = True) -> set[str]:
    """Repairs the store and gives the units that have to be extracted again."""
    report = verify_store(path, full=full)
    assert not report.ok
    planned = plan_repair(path, report)
    assert not planned.left
    carry_out(planned)
    assert not (path / "MANIFEST.json").exists()
    missing = set(store_status(path).missing)
    assert missing == set(planned.shards)
    return missing


def assert_whole_again(path: Path, pristine: Path, missing: set[str]) -> None:
    won = extract(path.parent, ROWS)
    assert {ROWS.plan.shard_name(shard) for shard in won} == missing and all(won.values())
    assert_reads_back(path, ROWS)
    report = verify_store(path, full=True)
    assert report.ok, report.problems
    of_receipts = ("receipts/", "MANIFEST.json")
    for name, data in store_files(pristine).items():
        assert name.startswith(of_receipts) or (path / name).read_bytes() == data, name
    assert store_files(path).keys() == store_files(pristine).keys()


def test_nothing_is_left_beside_a_committed_store(pristine: Path) -> None:
    assert [p.name for p in (pristine / "receipts").iterdir()] == ["packed.jsonl"]
    assert not (pristine / "work").exists()


@pytest.mark.parametrize(
    ("file", "at", "units"),
    [
        (f"{Q}/c.3.0.0.0", 0, {"32x32-3"}),
        (SCALE, 4 * SCALE_ROW, {"32x32-2"}),
        (SCALE, 10 * SCALE_ROW + 3, {"32x32-5"}),
        (LABELS, 20, {"32x32-0"}),
        # Beside the data of a row: the CRC32C in the shard, the index of rows whose places are known.
        (SCALE, 4 * SCALE_ROW + 12, set()),
        (SCALE, -5, set()),
        (SCALE, -1, set()),
        # A row that was skipped, and what is behind the last one.
        (SCALE, 7 * SCALE_ROW, set()),
    ],
)
def test_a_flipped_bit(path: Path, pristine: Path, file: str, at: int, units: set[str]) -> None:
    flip(path / file, at)
    assert repair(path) == units
    assert_whole_again(path, pristine, units)


def test_a_flipped_bit_in_the_index_of_compressed_rows(path: Path, pristine: Path) -> None:
    """The index says where they are: its own row is lost, the others hold."""
    entry = 16 * 16 + 4 - 5 * 16  # of position 5, counted from the end
    flip(path / LABELS, -entry)
    assert repair(path, full=False) == {"32x32-2"}
    assert_whole_again(path, pristine, {"32x32-2"})


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("file", [SCALE, LABELS])
def test_a_packed_shard_that_is_gone(path: Path, pristine: Path, file: str, full: bool) -> None:
    (path / file).unlink()
    assert repair(path, full=full) == FIRST_BIN
    assert_whole_again(path, pristine, FIRST_BIN)


def test_a_truncated_packed_shard(path: Path, pristine: Path) -> None:
    """Rows that are still there are kept."""
    data = (path / SCALE).read_bytes()
    (path / SCALE).write_bytes(data[: 5 * SCALE_ROW])
    lost = {"32x32-2", "32x32-3", "32x32-4", "32x32-5"}
    assert repair(path, full=False) == lost
    assert_whole_again(path, pristine, lost)


def test_a_damaged_receipt_among_all(path: Path, pristine: Path) -> None:
    lines = (path / PACK_PATH).read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b'"outcome":[', b'"outcome":{')
    (path / PACK_PATH).write_bytes(b"\n".join(lines))
    missing = repair(path, full=False)
    assert missing == {"32x32-1"}
    assert_whole_again(path, pristine, missing)


def test_the_file_of_all_receipts_is_gone(path: Path, pristine: Path) -> None:
    (path / PACK_PATH).unlink()
    missing = repair(path)
    assert missing == set(map(ROWS.plan.shard_name, ROWS.plan.shards()))
    assert_whole_again(path, pristine, missing)


def test_receipts_with_bytes_behind_them_need_a_new_commit(path: Path, pristine: Path) -> None:
    with (path / PACK_PATH).open("ab") as file:
        file.write(b"{}\n")
    assert repair(path, full=False) == set()
    assert_whole_again(path, pristine, set())


def test_a_changed_crc_in_a_receipt_is_located(path: Path, pristine: Path) -> None:
    lines = (path / PACK_PATH).read_bytes().splitlines()
    receipt = json.loads(lines[0])
    receipt["spool"]["crc32c"]["levels/p5/scale"][0] ^= 1
    lines[0] = canonical_json(receipt)
    (path / PACK_PATH).write_bytes(b"\n".join(lines) + b"\n")
    missing = repair(path)
    assert missing == {"32x32-0"}
    assert_whole_again(path, pristine, missing)


def test_a_changed_content_digest_is_found(path: Path) -> None:
    manifest = json.loads((path / "MANIFEST.json").read_bytes())
    manifest["content_digest"] = "0" * 64
    (path / "MANIFEST.json").write_bytes(canonical_json(manifest))
    assert [p.repair for p in verify_store(path).problems] == [Repair.COMMIT]


def test_two_damages_and_a_kill_of_the_repair(path: Path, pristine: Path) -> None:
    """After a kill at any operation the store is still damaged, or repaired."""

    class Killed(BaseException):
        pass

    class Dying(Files):
        def __init__(self, operations: int) -> None:
            super().__init__()
            self.left = operations

        def _count(self) -> None:
            if not self.left:
                raise Killed
            self.left -= 1

        def unlink(self, path: Path) -> None:
            self._count()
            super().unlink(path)

        def rename(self, source: Path, target: Path) -> None:
            self._count()
            super().rename(source, target)

    flip(path / Q / "c.1.0.0.0", 0)
    flip(path / LABELS, 20)
    for operations in range(2):
        again = Path(shutil.copytree(path, path.parent / str(operations) / path.name))
        with pytest.raises(Killed):
            carry_out(plan_repair(again, verify_store(again, full=True)), Dying(operations))
        assert (again / "MANIFEST.json").exists() and not verify_store(again, full=True).ok
        with pytest.raises(IntegrityError), open_store(again) as store:
            for row in range(len(store)):
                store.read_encoded([row])
                store.read_targets([row])
        assert repair(again) == {"32x32-0", "32x32-1"}
        gc_orphans(again, delete=True)
        assert_whole_again(again, pristine, {"32x32-0", "32x32-1"})


def test_repaired_twice(path: Path, pristine: Path) -> None:
    """Receipts of the first repair are packed beside the older ones."""
    for shard, units in ((2, {"32x32-2"}), (2, {"32x32-2"}), (4, {"32x32-4"})):
        flip(path / Q / f"c.{shard}.0.0.0", 0)
        assert repair(path) == units
        assert_whole_again(path, pristine, units)


def test_a_spool_that_is_damaged_before_the_commit(tmp_path: Path, pristine: Path) -> None:
    """The commit finds it, and the next run extracts this unit again."""
    writer = StoreWriter.open_or_create(tmp_path, ROWS.plan)
    fill_shards(tmp_path, ROWS)
    flip(writer.path / "work/spools/32x32-4.spool", 3)
    assert {p.shard for p in verify_store(writer.path, full=True).problems} == {None, "32x32-4"}
    with pytest.raises(IntegrityError, match="1 of 8 shards are not done: 32x32-4"):
        writer.finish()
    assert writer.pending() == [ShardId(0, 4)]
    assert not list(writer.path.rglob("*.partial"))
    assert_whole_again(writer.path, pristine, {"32x32-4"})


def test_what_stock_readers_see(pristine: Path) -> None:
    zarr = pytest.importorskip("zarr")
    array = zarr.open_group(pristine, mode="r")["bins/32x32/levels/p5/scale"]
    assert array.shards == (16, 3) and array.chunks == (1, 3)
    with open_store(pristine) as store:
        np.testing.assert_array_equal(array[0], store.read_encoded([0])["p5"]["scale"][0])
