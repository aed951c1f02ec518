"""Creating a store or continuing one: other identities, other plans, damage, unfit disks."""

import errno
import logging
from dataclasses import replace

import pytest

from stores import open_store
from stores.checks.status import store_status
from stores.checks.verify import verify_store
from stores.errors import (
    FormatError,
    IdentityError,
    IntegrityError,
    PlanError,
    SpaceError,
)
from stores.format.plan import ShardId
from stores.format.row_table import RowTable
from stores.shards.disk import Files, write_all
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import (
    LABELS,
    THREE_SHARDS,
    MadeRows,
    extract,
    fill_shard,
    small_plan,
)


@pytest.fixture
def rows():
    return MadeRows(small_plan())


def rows_with(plan, **changed):
    fields = {name: getattr(plan.rows, name) for name in RowTable.__dataclass_fields__}
    return RowTable(**{**fields, **changed})


def test_a_finished_store_is_not_changed(tmp_path, rows):
    extract(tmp_path, rows)
    path = tmp_path / rows.plan.folder_name
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in path.rglob("*")}
    writer = StoreWriter.open_or_create(tmp_path, rows.plan)
    assert writer.complete and writer.pending() == []
    digest = writer.finish()
    assert digest == open_store(path).manifest_digest
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in path.rglob("*")} == before


def test_another_identity_names_field_and_both_values(tmp_path, rows):
    extract(tmp_path, rows)
    plan = replace(rows.plan, identity={**rows.plan.identity, "views": {"count": 2, "seed": 9}})
    (tmp_path / rows.plan.folder_name).rename(tmp_path / plan.folder_name)
    with pytest.raises(IdentityError, match=r"views.seed: expected 9, found 0") as raised:
        StoreWriter.open_or_create(tmp_path, plan)
    assert (raised.value.field, raised.value.expected, raised.value.found) == ("views.seed", 9, 0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda plan: replace(plan, targets=(LABELS,)), "targets"),
        (lambda plan: replace(plan, pixels=True), "pixels"),
        (lambda plan: replace(plan, frames=2), "frames"),
        (lambda plan: replace(plan, name=plan.name), None),
        (lambda plan: replace(plan, view_params=("scale", "mirror")), "view_params"),
        (lambda plan: replace(plan, optional_features=("notes",)), "optional_features"),
        (lambda plan: replace(plan, rows=rows_with(plan, params=plan.rows.params + 1)), "rows.sha256.params"),
        (lambda plan: replace(plan, rows=rows_with(plan, keys=[k + "x" for k in plan.rows.keys])), "rows"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_same_identity_but_another_plan(tmp_path, rows, change, field, finished):
    if finished:
        extract(tmp_path, rows)
    else:
        StoreWriter.open_or_create(tmp_path, rows.plan)
    plan = change(rows.plan)
    if field is None:
        StoreWriter.open_or_create(tmp_path, plan)
    else:
        with pytest.raises(PlanError, match=f"another plan: {field}"):
            StoreWriter.open_or_create(tmp_path, plan)


def test_shard_and_batch_rows_of_the_plan_on_disk_win(tmp_path, rows, caplog):
    first = StoreWriter.open_or_create(tmp_path, rows.plan)
    fill_shard(first, ShardId(0, 0), rows)
    bins = tuple(replace(b, shard_rows=1, batch_rows=7) for b in rows.plan.bins)
    with caplog.at_level(logging.INFO):
        second = StoreWriter.open_or_create(tmp_path, replace(rows.plan, bins=bins))
    assert second.plan.bins == THREE_SHARDS and "continuing with" in caplog.text
    assert second.pending() == [ShardId(0, 1), ShardId(1, 0)]


def test_a_changed_plan_of_a_finished_store(tmp_path, rows):
    extract(tmp_path, rows)
    path = tmp_path / rows.plan.folder_name / "plan.json"
    path.write_bytes(path.read_bytes().replace(b'"batch_rows":2', b'"batch_rows":3'))
    with pytest.raises(IntegrityError, match="after the store was committed"):
        StoreWriter.open_or_create(tmp_path, rows.plan)


def test_a_damaged_manifest_is_named_and_repaired_as_advised(tmp_path, rows):
    extract(tmp_path, rows)
    path = tmp_path / rows.plan.folder_name
    manifest, whole = path / "MANIFEST.json", (path / "MANIFEST.json").read_bytes()
    manifest.write_bytes(whole[:-20])
    for look in (lambda: StoreWriter.open_or_create(tmp_path, rows.plan), lambda: open_store(path)):
        with pytest.raises(FormatError, match=f"{manifest} is not readable.*; delete it and run the extract"):
            look()
    manifest.unlink()
    writer = StoreWriter.open_or_create(tmp_path, rows.plan)
    assert not writer.pending() and writer.finish() and manifest.read_bytes() == whole


def test_a_damaged_plan_is_named_with_advice(tmp_path, rows):
    extract(tmp_path, rows)
    path = tmp_path / rows.plan.folder_name
    (path / "MANIFEST.json").unlink()
    (path / "plan.json").write_bytes(b"{")
    for look in (lambda: StoreWriter.open_or_create(tmp_path, rows.plan), lambda: store_status(path)):
        with pytest.raises(FormatError, match=f"{path}/plan.json is not readable.*; move the store away and"):
            look()


def test_damaged_tables_and_metadata_of_an_unfinished_store_are_written_again(tmp_path, rows):
    path = StoreWriter.open_or_create(tmp_path, rows.plan).path
    (path / "zarr.json").write_text("{}")
    (path / "rows/view/c/0").write_bytes(b"")
    (path / "bins/32x64/zarr.json").unlink()
    extract(tmp_path, rows)
    assert verify_store(path, full=True).ok


def test_missing_folders_above_the_store_are_made(tmp_path, rows):
    assert StoreWriter.open_or_create(tmp_path / "a" / "b", rows.plan).path.is_dir()


class FullDisk(Files):
    def free_bytes(self, path):
        return 1000


def test_a_store_that_does_not_fit_is_not_begun(tmp_path, rows):
    with pytest.raises(SpaceError, match="1000") as raised:
        StoreWriter.open_or_create(tmp_path, rows.plan, files=FullDisk())
    assert raised.value.needed_bytes == rows.plan.total_bytes and raised.value.free_bytes == 1000
    assert not list(tmp_path.iterdir())


class NoFolderSync(Files):
    def sync_folder(self, path):
        raise OSError(errno.EINVAL, "Invalid argument")


def test_folders_that_cannot_be_synced_are_logged_once(tmp_path, rows, caplog):
    with caplog.at_level(logging.INFO):
        extract(tmp_path, rows, NoFolderSync())
    assert caplog.text.count("cannot sync folders") <= 1
    assert verify_store(tmp_path / rows.plan.folder_name, full=True).ok


class OneByteAtATime(Files):
    def write(self, fd, parts, offset):
        return super().write(fd, [memoryview(parts[0])[:1]], offset)


def test_short_writes_are_completed(tmp_path):
    files = OneByteAtATime()
    fd = files.create(tmp_path / "file")
    write_all(files, fd, [b"abc", bytearray(b""), memoryview(b"de")], 2)
    files.close(fd)
    assert (tmp_path / "file").read_bytes() == b"\0\0abcde"


def test_a_write_that_makes_no_progress_is_an_error(tmp_path):
    class Stuck(Files):
        def write(self, fd, parts, offset):
            return 0

    files = Stuck()
    fd = files.create(tmp_path / "file")
    with pytest.raises(OSError, match="wrote 0 of 3"):
        write_all(files, fd, [b"abc"], 0)
    files.close(fd)
