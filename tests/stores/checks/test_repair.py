"""Repair: exactly the receipts of damaged shards go, and the next extraction writes these shards again."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import open_store, verify_store
from stores.checks.problems import Repair
from stores.checks.repair import carry_out, plan_repair, receipts_of
from stores.checks.status import store_status
from stores.errors import IntegrityError
from stores.format.canonical_json import canonical_json
from stores.format.plan import Bin, ShardId
from stores.shards.disk import Files
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import MadeRows, extract, fill_shard, small_plan
from tests.unsynced import unsynced  # noqa: F401 - a fixture of this module

BINS = (
    Bin(height_px=32, width_px=32, rows=23, shard_rows=1),
    Bin(height_px=32, width_px=64, rows=3, shard_rows=2),
)
"""Shards 0 to 22 and 0 to 1: the number 2 begins three others."""
SUPERSEDED = (ShardId(0, 2), ShardId(0, 20))
"""Shards whose first receipt was damaged and superseded: of generation 1."""
ROWS = MadeRows(small_plan(bins=BINS), skipped=frozenset({(0, 7)}))
NAMES = tuple(ROWS.plan.shard_name(shard) for shard in ROWS.plan.shards())


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pristine")
    writer = StoreWriter.open_or_create(root, ROWS.plan)
    for shard in SUPERSEDED:
        fill_shard(writer, shard, ROWS)
        (writer.path / "receipts" / f"{ROWS.plan.shard_name(shard)}.json").write_bytes(b"{}")
    extract(root, ROWS)
    assert len(list((writer.path / "receipts").iterdir())) == len(NAMES) + len(SUPERSEDED)
    return writer.path


@pytest.fixture
def path(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / pristine.name))


def contents(path: Path, folder: str) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in (path / folder).rglob("*") if p.is_file()}


def damage(path: Path, name: str, kind: str) -> None:
    bin_name, _, shard = name.rpartition("-")
    file = path / f"bins/{bin_name}/levels/p5/q/c/{shard}/0/0/0"
    latest = receipts_of([name], os.listdir(path / "receipts"))[0]
    if kind == "deleted":
        file.unlink()
    elif kind == "truncated":
        os.truncate(file, 5)
    elif kind == "flipped":
        data = bytearray(file.read_bytes())
        data[0] ^= 1
        file.write_bytes(data)
    elif kind == "receipt deleted":
        (path / "receipts" / latest).unlink()
    else:
        (path / "receipts" / latest).write_bytes(b"{}")


KINDS = ("deleted", "truncated", "flipped", "receipt deleted", "receipt damaged")


@settings(max_examples=8, deadline=None)
@given(damaged=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(KINDS), max_size=6))
def test_exactly_the_damaged_shards_are_written_again(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, damaged: dict[str, str]
) -> None:
    path = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("damaged") / pristine.name))
    for name, kind in damaged.items():
        damage(path, name, kind)
    before, shards_before = contents(path, "receipts"), contents(pristine, "bins")
    report = verify_store(path, full=True)
    repair = plan_repair(path, report)
    assert contents(path, "receipts") == before, "planning changes nothing"
    assert set(repair.shards) == set(damaged) and not repair.left
    carry_out(repair)
    status = store_status(path)
    healthy = {n: data for n, data in before.items() if n.split("/")[1].split(".")[0] not in damaged}
    assert contents(path, "receipts") == healthy
    assert status.complete == (not damaged) and set(status.missing) == set(damaged)
    assert set(map(ROWS.plan.shard_name, extract(path.parent, ROWS))) == set(damaged)
    assert verify_store(path, full=True).ok and contents(path, "bins") == shards_before
    assert {n: contents(path, "receipts")[n] for n in healthy} == healthy
    assert store_status(path).complete
    shutil.rmtree(path.parent)


shard_names = st.builds(
    "{}x{}-{}".format, st.sampled_from((32, 64, 320)), st.sampled_from((32, 64)), st.integers(0, 310)
)
receipts = st.builds(
    lambda name, generation: (name, f"{name}{f'.{generation}' if generation else ''}.json"),
    shard_names,
    st.integers(0, 999),
)


@given(receipts=st.lists(receipts, max_size=40), wanted=st.sets(shard_names, max_size=10))
def test_a_shard_has_all_generations_of_its_own_receipt(
    receipts: list[tuple[str, str]], wanted: set[str]
) -> None:
    names = [name for _, name in receipts]
    others = ["64x64-2", "64x64-2.json.partial", "64x64-2*.json", "64x64-02.json.json", "../64x64-2.json"]
    wanted |= {"64x64-2"}
    found = receipts_of(wanted, {*names, *others})
    assert sorted(found) == sorted({name for shard, name in receipts if shard in wanted})


def test_a_killed_repair_is_repeated(path: Path) -> None:
    """After a kill at any operation the store is still damaged, or repaired; never sound with damage."""

    class Killed(BaseException):
        pass

    class Dying(Files):
        def __init__(self, operations: int) -> None:
            self.left = operations

        def unlink(self, path: Path) -> None:
            if not self.left:
                raise Killed
            self.left -= 1
            super().unlink(path)

    damage(path, "32x32-2", "flipped")
    damage(path, "32x64-1", "deleted")
    for operations in range(4):
        again = Path(shutil.copytree(path, path.with_name(f"killed-{operations}")))
        with pytest.raises(Killed):
            carry_out(plan_repair(again, verify_store(again, full=True)), Dying(operations))
        assert (again / "MANIFEST.json").exists() and not verify_store(again, full=True).ok
        with pytest.raises(IntegrityError), open_store(again) as store:
            for row in range(len(store)):
                store.read_encoded([row])
        carry_out(plan_repair(again, verify_store(again, full=True)))
        assert set(store_status(again).missing) == {"32x32-2", "32x64-1"}


@pytest.mark.parametrize(
    "name", ["rows/view/c/0", "rows/outcome/c/0", "bins/32x32/levels/p5/crc/c/0", "bins/32x64/zarr.json"]
)
@pytest.mark.parametrize("deleted", [True, False])
def test_tables_and_metadata_need_a_new_commit(path: Path, name: str, deleted: bool) -> None:
    files = contents(path, ".")
    if deleted:
        (path / name).unlink()
    else:
        (path / name).write_bytes(b"?" + files[name][1:])
    repair = plan_repair(path, verify_store(path))
    assert (repair.files, repair.shards, repair.left) == (("MANIFEST.json",), (), ())
    carry_out(repair)
    assert extract(path.parent, ROWS) == {}
    assert contents(path, ".") == files


def test_a_manifest_of_nonsense(path: Path) -> None:
    files = contents(path, ".")
    (path / "MANIFEST.json").write_bytes(b"{")
    damage(path, "32x32-20", "flipped")
    repair = plan_repair(path, verify_store(path, full=True))
    assert repair.files == ("receipts/32x32-20.1.json", "receipts/32x32-20.json", "MANIFEST.json")
    carry_out(repair)
    assert extract(path.parent, ROWS) == {ShardId(0, 20): True}
    assert contents(path, "bins") == {n: data for n, data in files.items() if n.startswith("bins/")}


@pytest.mark.parametrize("field", ["crc32c", "sha256", "source", "outcome"])
def test_one_changed_digit_of_a_receipt_is_located(path: Path, field: str) -> None:
    """The receipt still reads, and the manifest has one digest of all."""
    file = path / "receipts/32x32-2.1.json"
    content = json.loads(file.read_bytes())
    figures = content["files"]["bins/32x32/levels/p5/q/c/2/0/0/0"]
    if field == "crc32c":
        figures["crc32c"][0] ^= 1
    elif field == "sha256":
        figures["sha256"] = "0" * 64
    else:
        content[field][0] = "0" * 64 if field == "source" else 1
    file.write_bytes(canonical_json(content))
    sound = contents(path, "bins")
    if field != "sha256":  # which is in no table
        assert {p.shard for p in verify_store(path).problems} == {"32x32-2", None}
    repair = plan_repair(path, verify_store(path, full=True))
    assert repair.files == ("receipts/32x32-2.1.json", "receipts/32x32-2.json", "MANIFEST.json")
    carry_out(repair)
    assert extract(path.parent, ROWS) == {ShardId(0, 2): True}
    assert verify_store(path, full=True).ok and contents(path, "bins") == sound


def test_a_changed_receipt_that_cannot_be_located(path: Path) -> None:
    file = path / "receipts/32x32-1.json"
    file.write_bytes(file.read_bytes().replace(b'"numpy":"2"', b'"numpy":"3"'))
    report = verify_store(path, full=True)
    assert [p.repair for p in report.problems] == [Repair.NONE] and not plan_repair(path, report).files


def test_a_store_that_cannot_be_trusted_is_left_alone(path: Path) -> None:
    damage(path, "32x32-2", "deleted")
    report = verify_store(path, manifest_digest="0" * 64)
    repair = plan_repair(path, report)
    assert repair.files == () and [p.repair for p in repair.left] == [Repair.NONE]
    (path / "plan.json").unlink()
    assert plan_repair(path, verify_store(path)).files == ()


def test_foreign_files_are_named_and_kept(path: Path) -> None:
    (path / "receipts/32x32-2x.json").write_text("{}")
    damage(path, "32x32-1", "deleted")
    repair = plan_repair(path, verify_store(path))
    assert repair.files == ("receipts/32x32-1.json", "MANIFEST.json")
    assert [p.repair for p in repair.left] == [Repair.FOREIGN]


def test_receipts_behind_a_link_are_kept(path: Path, tmp_path: Path) -> None:
    outside = (path / "receipts").rename(tmp_path / "outside")
    (path / "receipts").symlink_to(outside)
    repair = plan_repair(path, verify_store(path))
    assert repair.files == ("MANIFEST.json",)
    carry_out(repair)
    assert len(list(outside.iterdir())) == len(NAMES) + len(SUPERSEDED)


def test_an_unfinished_store(path: Path) -> None:
    (path / "MANIFEST.json").unlink()
    assert plan_repair(path, verify_store(path, full=True)).files == ()
    damage(path, "32x32-20", "flipped")
    repair = plan_repair(path, verify_store(path, full=True))
    assert repair.files == ("receipts/32x32-20.1.json", "receipts/32x32-20.json")
    assert [problem.repair for problem in repair.left] == [Repair.RESUME]
    carry_out(repair)
    assert store_status(path).missing == ("32x32-20",)
    extract(path.parent, ROWS)
    assert verify_store(path, full=True).ok


def test_a_plan_that_is_gone_is_not_written_again(path: Path) -> None:
    """Another plan could have the identity of this one, and other shards."""
    (path / "plan.json").unlink()
    with pytest.raises(IntegrityError, match=r"plan.json is missing while MANIFEST.json is there; move"):
        StoreWriter.open_or_create(path.parent, ROWS.plan)
    assert not (path / "plan.json").exists()
