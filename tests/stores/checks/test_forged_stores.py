"""Stores whose parts contradict each other while all digests agree, and edited metadata."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from stores import open_store, verify_store
from stores.checks.problems import Repair, Report
from stores.errors import DerivedFileError, IntegrityError
from stores.format.canonical_json import canonical_json
from stores.format.plan_file import decode_plan
from stores.shards.receipt_tables import ReceiptTables
from stores.shards.receipts import decode_receipt
from stores.shards.shard_index import crc32c, decode_index, encode_index
from stores.shards.zstd_frames import encode_frame
from tests.faults.made_stores import MadeRows, extract, small_plan

Q = "bins/32x64/levels/p5/q"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows, root = MadeRows(small_plan(pixels=True)), tmp_path_factory.mktemp("pristine")
    extract(root, rows)
    return root / rows.plan.folder_name


@pytest.fixture
def path(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / pristine.name))


def edit(file: Path, change: Change) -> None:
    content = json.loads(file.read_bytes())
    change(content)
    file.write_bytes(canonical_json(content))


def redo_digests(path: Path) -> None:
    """Makes receipts, tables and manifest agree with every file of the store, as its author could."""
    plan_bytes = (path / "plan.json").read_bytes()
    plan = decode_plan(plan_bytes, lambda spec: (path / spec.chunk_file()).read_bytes(), "plan.json")
    tables = ReceiptTables(plan)
    for shard in plan.shards():
        file = path / f"receipts/{plan.shard_name(shard)}.json"
        edit(file, lambda receipt: redo_receipt(path, receipt, plan_bytes))
        data = file.read_bytes()
        tables.take(decode_receipt(data, plan, shard, 0, set(json.loads(data)["files"])))
    for name, data in tables.chunks().items():
        (path / name).write_bytes(data)

    def redo(manifest: dict[str, Any]) -> None:
        manifest["identity_sha256"] = plan.identity_digest
        manifest["receipts_sha256"] = tables.receipts_sha256
        for name in manifest["files"]:
            manifest["files"][name] = hashlib.sha256((path / name).read_bytes()).hexdigest()

    edit(path / "MANIFEST.json", redo)


def redo_receipt(path: Path, receipt: dict[str, Any], plan_bytes: bytes) -> None:
    receipt["plan_sha256"] = hashlib.sha256(plan_bytes).hexdigest()
    for name, figures in receipt["files"].items():
        data = (path / name).read_bytes()
        figures.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def reads(path: Path) -> bool:
    """Whether every row of the store can be read."""
    try:
        with open_store(path, threads=1) as store:
            for row in range(len(store)):
                store.read_features([row])
                store.read_targets([row])
                store.read_pixels([row])
    except IntegrityError:
        return False
    return True


def only(report: Report, repair: Repair) -> str:
    """The texts of the problems, which must all be repaired in this way."""
    assert {problem.repair for problem in report.problems} == {repair}, report.problems
    return "; ".join(problem.what for problem in report.problems)


def test_digests_can_be_redone(path: Path) -> None:
    redo_digests(path)
    assert verify_store(path, full=True).ok and reads(path)


def test_a_plan_of_other_channels_than_its_arrays(path: Path) -> None:
    """All digests agree, so that every byte compared is right, yet no row can be read."""
    edit(path / "plan.json", lambda plan: plan["levels"][0].update(channels=7))
    redo_digests(path)
    assert not reads(path)
    for full in (False, True):
        report = verify_store(path, full=full)
        texts = "; ".join(problem.what for problem in report.problems)
        assert f"{Q}/zarr.json contradicts plan.json: chunk_grid is" in texts
        assert "c/0/0/0/0 has 80 bytes, expected" not in texts  # the receipt agrees
        assert "levels/p5/q/c/0/0/0/0 has" in texts and "by plan.json" in texts


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", [3, 1, 2, 9]),
        ("data_type", "uint8"),
        ("fill_value", 0),
        ("codecs", [{"name": "bytes"}]),
        ("chunk_key_encoding", {"name": "default", "configuration": {"separator": "."}}),
        ("storage_transformers", [{"name": "other"}]),
    ],
)
def test_metadata_that_contradict_the_plan_are_refused(path: Path, field: str, value: Any) -> None:
    """zarr-python goes by zarr.json and would return other numbers than our reader, which uses the plan."""
    edit(path / Q / "zarr.json", lambda metadata: metadata.update({field: value}))
    assert only(verify_store(path), Repair.COMMIT).endswith(
        f"{Q}/zarr.json was changed: its sha256 is not the manifest's"
    )
    with pytest.raises(DerivedFileError, match=r"zarr.json was changed.*verify --repair"):
        open_store(path)
    redo_digests(path)
    assert f"{Q}/zarr.json contradicts plan.json: {field} is" in only(verify_store(path), Repair.NONE)
    with pytest.raises(IntegrityError, match=r"contradicts plan.json.*move the store away"):
        open_store(path)


def test_an_edited_zarr_json_does_not_open(path: Path) -> None:
    stock = zarr.open_array(path / "rows/view", mode="r")[...]
    edit(path / "rows/view/zarr.json", lambda metadata: metadata.update(data_type="float32"))
    assert not np.array_equal(zarr.open_array(path / "rows/view", mode="r")[...], stock)
    with pytest.raises(IntegrityError, match=r"rows/view/zarr\.json was changed"):
        open_store(path)


@pytest.mark.parametrize("name", ["zarr.json", "bins/zarr.json", f"{Q}/zarr.json", "rows/key/zarr.json"])
def test_missing_metadata_are_named(path: Path, name: str) -> None:
    (path / name).unlink()
    with pytest.raises(DerivedFileError, match=f"{name} is missing"):
        open_store(path)
    assert only(verify_store(path), Repair.COMMIT).endswith(f"{name} is missing")


def test_a_newer_writer_may_say_more(path: Path) -> None:
    """Attributes, dimension names and consolidated metadata change nothing of what is read."""
    edit(
        path / Q / "zarr.json",
        lambda m: m.update(attributes={"decode": "q * scale"}, dimension_names=["row", "a", "b", "c"]),
    )
    array = json.loads((path / Q / "zarr.json").read_bytes())
    consolidated = {"kind": "inline", "must_understand": False, "metadata": {Q: array}}
    edit(path / "zarr.json", lambda m: m.update(consolidated_metadata=consolidated))
    redo_digests(path)
    assert verify_store(path, full=True).ok and reads(path)
    consolidated["metadata"][Q] = {**array, "data_type": "uint8"}
    edit(path / "zarr.json", lambda m: m.update(consolidated_metadata=consolidated))
    redo_digests(path)
    assert "consolidated metadata of 'bins/32x64/levels/p5/q': data_type" in only(
        verify_store(path), Repair.NONE
    )


def test_an_identity_in_zarr_json_is_that_of_the_plan(path: Path) -> None:
    edit(path / "zarr.json", lambda root: root["attributes"]["identity"].update(dataset="other"))
    redo_digests(path)
    assert "attribute identity differs" in only(verify_store(path), Repair.NONE)


def test_a_chunk_that_does_not_decode(path: Path) -> None:
    """A frame of another length, with every checksum redone."""
    name = "bins/64x32/targets/labels/c/0/0/0"
    data = bytearray((path / name).read_bytes())
    index = decode_index(bytes(data[-68:]), name).copy()
    offset, stored = (int(value) for value in index[0])
    frame = encode_frame(np.zeros(16, np.uint8))
    assert len(frame) + 4 <= stored
    crc = crc32c(frame)
    data[offset : offset + len(frame) + 4] = frame + crc.to_bytes(4, "little")
    index[0, 1] = len(frame) + 4
    (path / name).write_bytes(bytes(data[:-68]) + encode_index(index))
    edit(path / "receipts/64x32-0.json", lambda r: r["files"][name]["crc32c"].__setitem__(0, crc))
    redo_digests(path)
    assert not reads(path) and verify_store(path).ok
    assert "states a length of 16, expected 2048 bytes" in only(verify_store(path, full=True), Repair.SHARD)


def test_a_length_that_its_target_cannot_have(path: Path) -> None:
    edit(path / "receipts/64x32-0.json", lambda r: r["lengths"]["original_labels"].__setitem__(0, 5))
    redo_digests(path)
    assert not reads(path) and verify_store(path).ok
    assert "original_labels: 5 bytes" in only(verify_store(path, full=True), Repair.SHARD)


def test_checksums_of_rows_that_were_not_written(path: Path) -> None:
    edit(path / "receipts/64x32-0.json", lambda r: r["outcome"].__setitem__(1, 0))
    redo_digests(path)
    edit(path / "MANIFEST.json", lambda manifest: manifest.update(skipped=[]))
    assert not reads(path)
    assert "checksums of other rows than were written" in only(verify_store(path), Repair.SHARD)


def test_a_receipt_of_another_plan(path: Path) -> None:
    edit(path / "receipts/32x64-1.json", lambda receipt: receipt.update(plan_sha256="0" * 64))
    report = verify_store(path)
    assert [p.shard for p in report.problems] == ["32x64-1", None]
    assert "belongs to another plan" in report.problems[0].what


def test_a_plan_that_is_gone(path: Path) -> None:
    (path / "plan.json").unlink()
    with pytest.raises(IntegrityError, match=r"plan.json is missing; move the store away"):
        open_store(path)
    assert only(verify_store(path), Repair.NONE).endswith("move the store away and extract again")


def test_renames_that_a_killed_writer_left_are_no_damage(path: Path) -> None:
    (path / "MANIFEST.json").unlink()
    file = path / Q / "c/0/0/0/0"
    writer = json.loads((path / "receipts/32x64-0.json").read_bytes())["writer"]
    partial = file.rename(file.with_name(f"{file.name}.{writer}.partial"))
    assert only(verify_store(path, full=True), Repair.RESUME)
    data = bytearray(partial.read_bytes())
    data[0] ^= 1
    partial.write_bytes(data)
    assert [p.shard for p in verify_store(path, full=True).problems] == [None, "32x64-0"]
