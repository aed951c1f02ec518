"""verify, status and gc: problems found, shards named, files kept."""

import json
import os

import numpy as np
import pytest

from stores.checks.verify import gc_orphans, store_status, verify_store
from stores.errors import NoSuchStore
from stores.format.plan import ShardId
from stores.shards.disk import Files
from stores.shards.receipts import decode_receipt
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import MadeRows, extract, fill_shard, small_plan


@pytest.fixture
def rows():
    return MadeRows(small_plan(pixels=True))


@pytest.fixture
def path(tmp_path, rows):
    extract(tmp_path, rows)
    return tmp_path / rows.plan.folder_name


def flip(file, at=0):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def the_problem(report):
    assert not report.ok
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


def test_a_sound_store_has_no_problems(path):
    quick, full = verify_store(path), verify_store(path, full=True)
    assert quick.ok and full.ok
    files = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    assert 0 < quick.bytes_read < full.bytes_read <= files


def test_a_trusted_manifest_digest_proves_authenticity(path):
    digest = StoreWriter.open_or_create(path.parent, small_plan(pixels=True)).finish()
    assert verify_store(path, manifest_digest=digest).ok
    assert "expected " + "0" * 64 in the_problem(verify_store(path, manifest_digest="0" * 64)).what


def shard_files(path):
    return sorted(p for p in path.glob("bins/*/**/c/**/*") if p.is_file() and "crc" not in str(p))


def test_shards_and_rows_are_named(path, rows):
    chunk = path / "bins/32x64/levels/p5/q/c/1/0/0/0"
    chunk.unlink()
    problem = the_problem(verify_store(path))
    assert (problem.store, problem.shard) == (str(path), "32x64-1")
    assert problem.rows == (rows.plan.global_row(0, 2),)
    assert "levels/p5/q/c/1/0/0/0 is missing" in problem.what


@pytest.mark.parametrize("name", ["levels/p5/q", "levels/p5/scale", "pixels", "targets/labels"])
def test_full_finds_every_flipped_bit(path, name):
    file = next(p for p in shard_files(path) if f"bins/64x32/{name}/c/0" in str(p))
    for at in range(0, file.stat().st_size, max(1, file.stat().st_size // 15)):
        flip(file, at)
        assert the_problem(verify_store(path, full=True)).shard == "64x32-0"
        flip(file, at)
    assert verify_store(path, full=True).ok


@pytest.mark.parametrize("length", [0, 3, -1])
def test_quick_finds_other_lengths(path, length):
    file = path / "bins/64x32/levels/p5/q/c/0/0/0/0"
    os.truncate(file, length % file.stat().st_size)
    assert "bytes, expected" in the_problem(verify_store(path)).what


def test_quick_finds_a_damaged_index(path):
    file = path / "bins/64x32/levels/p5/q/c/0/0/0/0"
    flip(file, file.stat().st_size - 10)
    assert "index" in the_problem(verify_store(path)).what


@pytest.mark.parametrize(
    "name",
    [
        "plan.json",
        "zarr.json",
        "bins/32x64/zarr.json",
        "bins/32x64/levels/p5/q/zarr.json",
        "rows/view/c/0",
        "rows/key/c/0/0",
        "rows/outcome/c/0",
        "rows/source/c/0/0",
        "bins/32x64/levels/p5/crc/c/0",
        "bins/32x64/levels/p5/scale_crc/c/0",
        "bins/32x64/targets/original_labels_bytes/c/0",
        "receipts/32x64-0.json",
        "MANIFEST.json",
    ],
)
@pytest.mark.parametrize("deleted", [True, False])
def test_every_small_file_is_bound(path, name, deleted):
    if deleted:
        (path / name).unlink()
    else:
        flip(path / name, 20 % (path / name).stat().st_size)
    assert not verify_store(path).ok


def test_an_edited_receipt_that_still_reads(path):
    receipt = path / "receipts/32x64-0.json"
    receipt.write_bytes(receipt.read_bytes().replace(b'"numpy":"2"', b'"numpy":"3"'))
    assert "receipts were changed" in the_problem(verify_store(path)).what


def test_a_receipt_with_impossible_numbers_is_refused(path):
    receipt = path / "receipts/32x64-0.json"
    content = json.loads(receipt.read_bytes())
    content["outcome"][0] = 300
    receipt.write_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    assert "300" in the_problem(verify_store(path)).what


def test_foreign_files_are_named(path):
    (path / "bins/evil").mkdir()
    (path / "bins/evil/zarr.json").write_text("{}")
    assert "bins/evil/zarr.json is not part" in the_problem(verify_store(path)).what


def test_unfinished_stores(tmp_path, rows):
    writer = StoreWriter.open_or_create(tmp_path, rows.plan)
    fill_shard(writer, ShardId(0, 0), rows)
    fill_shard(writer, ShardId(0, 1), rows)
    assert "has not finished" in the_problem(verify_store(writer.path, full=True)).what
    flip(writer.path / "bins/32x64/levels/p5/q/c/1/0/0/0")
    assert [p.shard for p in verify_store(writer.path).problems] == [None]
    assert [p.shard for p in verify_store(writer.path, full=True).problems] == [None, "32x64-1"]
    flip(writer.path / "receipts/32x64-0.json", 0)
    assert [p.shard for p in verify_store(writer.path).problems] == [None, "32x64-0"]


def test_status(tmp_path, rows):
    writer = StoreWriter.open_or_create(tmp_path, rows.plan)
    status = store_status(writer.path)
    assert not status.complete and status.rows == 6 and status.written == 0
    assert status.missing == ("32x64-0", "32x64-1", "64x32-0")
    fill_shard(writer, ShardId(1, 0), rows)
    status = store_status(writer.path)
    assert status.missing == ("32x64-0", "32x64-1") and status.written == 2
    row = rows.plan.global_row(1, 1)
    hole = (rows.plan.rows.keys[row], int(rows.plan.rows.view[row]), 1, "not an image")
    assert status.skipped == [hole]
    extract(tmp_path, rows)
    status = store_status(writer.path)
    assert status.complete and status.missing == () and status.written == 5 and status.skipped == [hole]
    with pytest.raises(NoSuchStore):
        store_status(tmp_path)


def test_a_store_whose_creation_was_killed(tmp_path, rows):
    class Killed(BaseException):
        pass

    class DiesAfterThePlan(Files):
        def rename(self, source, target):
            raise Killed

    with pytest.raises(Killed):
        StoreWriter.open_or_create(tmp_path, rows.plan, files=DiesAfterThePlan())
    path = tmp_path / rows.plan.folder_name
    status = store_status(path)
    assert not status.complete and status.rows == 6 and len(status.missing) == 3
    assert gc_orphans(path, delete=True) and not list(path.rglob("*.partial"))
    assert not verify_store(path).ok
    extract(tmp_path, rows)
    assert verify_store(path, full=True).ok


def test_gc_lists_then_deletes_and_keeps_files_of_receipts(tmp_path, rows):
    class Killed(BaseException):
        pass

    class DiesBeforeRename(Files):
        def rename(self, source, target):
            if "/c/" in str(target) and "/bins/" in str(target):
                raise Killed
            super().rename(source, target)

    writer = StoreWriter.open_or_create(tmp_path, rows.plan, files=DiesBeforeRename())
    with pytest.raises(Killed):
        fill_shard(writer, ShardId(0, 0), rows)
    writer.open_shard(ShardId(0, 1))  # and killed, too
    orphans = gc_orphans(writer.path)
    assert len(orphans) == 5 and all("/c/1/" in str(orphan.path) for orphan in orphans)
    assert gc_orphans(writer.path, delete=True) == orphans
    assert gc_orphans(writer.path) == []
    assert len(list(writer.path.rglob("*.partial"))) == 5
    assert extract(tmp_path, rows) == {ShardId(0, 1): True, ShardId(1, 0): True}
    assert not list(writer.path.rglob("*.partial")) and verify_store(writer.path, full=True).ok


def test_receipts_hold_the_specified_fields(path, rows):
    shard = ShardId(1, 0)
    data = (path / "receipts/64x32-0.json").read_bytes()
    names = ("levels/p5/q", "levels/p5/scale", "pixels", "targets/labels", "targets/original_labels")
    content = json.loads(data)
    assert {p.partition("/c/")[0] for p in content["files"]} == {f"bins/64x32/{name}" for name in names}
    receipt = decode_receipt(data, rows.plan, shard, 0, set(content["files"]))
    assert receipt.outcome == (0, 1, 0) and receipt.reasons == {"1": "not an image"}
    scale_bits = 32 / 2  # of two cells
    assert receipt.errors == {"p5": {"median": 0.5, "bits_per_value": 8 + scale_bits}}
    assert receipt.provenance == {"numpy": "2"}
    assert all(f.crc32c[1] is None and f.crc32c[0] is not None for f in receipt.files.values())
    table = np.frombuffer((path / "bins/64x32/levels/p5/crc/c/0").read_bytes(), "<u4").tolist()
    q = next(f for p, f in receipt.files.items() if "/q/" in p)
    assert table == [crc or 0 for crc in q.crc32c]
