"""Writing: resume, several writers, and rows that are refused."""

import errno
import os

import numpy as np
import pytest

from stores import open_store
from stores.checks.verify import verify_store
from stores.errors import (
    CodecError,
    IncompleteStore,
    PlanError,
)
from stores.format.plan import ShardId
from stores.shards.disk import Files
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import (
    P4,
    P5,
    MadeRows,
    extract,
    fill_shard,
    small_plan,
)


@pytest.fixture
def rows():
    return MadeRows(small_plan())


def partials(path):
    return list(path.rglob("*.partial"))


@pytest.fixture
def shard_writer(tmp_path, rows):
    writer = StoreWriter.open_or_create(tmp_path, rows.plan).open_shard(ShardId(0, 0))
    yield writer
    writer.abort()


def put(shard_writer, rows, row=0, **changed):
    place = (0, row)
    fields = {
        "levels": rows.encoded(*place),
        "targets": rows.targets(*place),
        "source_sha256": rows.source_sha256(*place),
    }
    shard_writer.put(row, **{**fields, **changed})


def changed_level(rows, **kinds):
    return {"levels": {"p5": {**rows.encoded(0, 0)["p5"], **kinds}}}


def changed_target(rows, **targets):
    return {"targets": {**rows.targets(0, 0), **targets}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"levels": {}}, "levels/p5/q, levels/p5/scale"),
        (lambda r: {"levels": {**r.encoded(0, 0), "p2": {}, "p3": {"q": np.zeros(1)}}}, "levels/p3/q"),
        (lambda r: {"targets": {}}, "targets/labels"),
        (lambda r: {"pixels": np.zeros((32, 64, 3), np.uint8)}, "pixels"),
        (lambda r: changed_level(r, q=np.zeros((1, 2, 3), np.int16)), "int16"),
        (lambda r: changed_level(r, q=np.zeros((1, 2, 4), np.int8)), r"\(1, 2, 4\)"),
        (lambda r: changed_target(r, labels=np.zeros((64, 32), np.uint8)), r"\(64, 32\)"),
        (lambda r: changed_target(r, original_labels=np.zeros((7, 5), np.uint8)), "original_labels"),
        (lambda r: changed_target(r, original_labels=np.zeros((99, 1), np.uint8)), "do not fill"),
        (lambda r: changed_target(r, original_labels=np.zeros((5, 7), np.int8)), "int8"),
        (lambda r: {"source_sha256": b"short"}, "5 bytes"),
    ],
)
def test_rows_that_do_not_fit_the_plan(shard_writer, rows, change, message):
    with pytest.raises(PlanError, match=message):
        put(shard_writer, rows, **change(rows))
    put(shard_writer, rows)  # nothing was written of the refused one


@pytest.mark.parametrize("kinds", [{"q": -128}, {"scale": np.nan}, {"scale": -1.0}, {"scale": np.inf}])
def test_codes_that_no_encoder_produces(shard_writer, rows, kinds):
    encoded = rows.encoded(0, 0)["p5"]
    bad = {kind: np.full_like(encoded[kind], value) for kind, value in kinds.items()}
    with pytest.raises(CodecError, match="row 0, level p5"):
        put(shard_writer, rows, **changed_level(rows, **bad))


def test_rows_of_another_shard_or_given_twice(shard_writer, rows):
    with pytest.raises(PlanError, match="not in shard"):
        put(shard_writer, rows, row=2)
    put(shard_writer, rows)
    with pytest.raises(PlanError, match="twice"):
        put(shard_writer, rows)
    with pytest.raises(PlanError, match="twice"):
        shard_writer.skip(0, 1, "broken", source_sha256=None)
    with pytest.raises(PlanError, match="outcome code 0"):
        shard_writer.skip(1, 0, "written?", source_sha256=None)
    with pytest.raises(PlanError, match=r"rows \[1\] were neither"):
        shard_writer.commit({}, {})


@pytest.mark.parametrize("errors", [{"p5": float("nan")}, {"p5": np.float32(1)}, {"p5": {1, 2}}])
def test_figures_that_json_cannot_hold(shard_writer, rows, errors):
    for row in shard_writer.rows:
        put(shard_writer, rows, row=row)
    with pytest.raises(PlanError, match="JSON"):
        shard_writer.commit({}, errors)
    assert shard_writer.commit({}, {})  # nothing is lost


# shards


def test_resume_writes_what_is_missing(tmp_path, rows):
    writer = StoreWriter.open_or_create(tmp_path, rows.plan)
    assert writer.pending() == list(rows.plan.shards()) and not writer.complete
    fill_shard(writer, ShardId(1, 0), rows)
    with pytest.raises(IncompleteStore, match="2 of 3 shards are not done: 32x64-0, 32x64-1"):
        writer.finish()
    assert StoreWriter.open_or_create(tmp_path, rows.plan).pending() == [ShardId(0, 0), ShardId(0, 1)]
    assert extract(tmp_path, rows) == {ShardId(0, 0): True, ShardId(0, 1): True}
    assert verify_store(writer.path, full=True).ok


def test_aborted_shards_leave_nothing(tmp_path, rows):
    writer = StoreWriter.open_or_create(tmp_path, rows.plan)
    shard_writer = writer.open_shard(ShardId(0, 0))
    put(shard_writer, rows)
    assert len(partials(writer.path)) == 4
    shard_writer.abort()
    assert not partials(writer.path) and ShardId(0, 0) in writer.pending()


def test_of_two_writers_one_wins(tmp_path, rows):
    """Both write different bytes for one plan at once; the store holds all bytes of the first receipt."""
    other = MadeRows(rows.plan, seed=1)
    writers = [StoreWriter.open_or_create(tmp_path, rows.plan) for _ in range(2)]
    for shard in rows.plan.shards():
        first, second = (writer.open_shard(shard) for writer in writers)
        for row in first.rows:
            for shard_writer, made in ((first, rows), (second, other)):
                place = shard.bin, row
                if place in made.skipped:
                    shard_writer.skip(row, 1, "not an image", source_sha256=None)
                else:
                    shard_writer.put(row, made.encoded(*place), made.targets(*place), source_sha256=bytes(32))
        assert first.commit({}, {}) is True
        assert second.commit({}, {}) is False
    assert writers[0].finish() == writers[1].finish()
    assert not partials(writers[0].path) and verify_store(writers[0].path, full=True).ok
    with open_store(writers[0].path) as store:
        for row, copy in enumerate(list(rows.copies().values())):
            np.testing.assert_array_equal(store.read_encoded([row])["p5"]["q"][0], copy["levels/p5/q"])


class LostReply(Files):
    """A network file system that creates the link, loses the reply, and answers the retry with EEXIST."""

    def link(self, source, target):
        super().link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists", str(target))


def test_a_lost_reply_does_not_lose_the_shard(tmp_path, rows):
    assert all(extract(tmp_path, rows, LostReply()).values())
    assert verify_store(tmp_path / rows.plan.folder_name, full=True).ok


@pytest.mark.parametrize("damage", ["deleted", "truncated", "receipt"])
def test_a_damaged_shard_is_superseded_before_the_manifest(tmp_path, rows, damage):
    writer = StoreWriter.open_or_create(tmp_path, rows.plan)
    for shard in writer.pending():
        fill_shard(writer, shard, rows)
    chunk = writer.path / "bins/32x64/levels/p5/q/c/1/0/0/0"
    if damage == "deleted":
        chunk.unlink()
    elif damage == "truncated":
        os.truncate(chunk, 5)
    else:
        receipt = writer.path / "receipts/32x64-1.json"
        receipt.write_bytes(receipt.read_bytes()[:100])
    assert writer.pending() == [ShardId(0, 1)]
    assert extract(tmp_path, rows) == {ShardId(0, 1): True}
    assert (writer.path / "receipts/32x64-1.1.json").exists()
    assert verify_store(writer.path, full=True).ok
    assert len(open_store(writer.path)) == len(list(rows.copies().values()))


def test_a_full_check_finds_wrong_bytes(tmp_path, rows):
    writer = StoreWriter.open_or_create(tmp_path, rows.plan)
    for shard in writer.pending():
        fill_shard(writer, shard, rows)
    chunk = writer.path / "bins/32x64/levels/p5/q/c/1/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[0] ^= 1
    chunk.write_bytes(data)
    assert writer.pending() == [] and writer.pending(full=True) == [ShardId(0, 1)]
    assert fill_shard(writer, ShardId(0, 1), rows)
    assert writer.pending(full=True) == [] and len(writer.finish()) == 64
    assert verify_store(writer.path, full=True).ok


def test_unfinished_renames_are_completed_by_the_next_writer(tmp_path, rows):
    class Killed(BaseException):
        pass

    class DiesAfterReceipt(Files):
        def rename(self, source, target):
            if "/levels/" in str(target) and "/c/" in str(target):
                raise Killed
            super().rename(source, target)

    writer = StoreWriter.open_or_create(tmp_path, rows.plan, files=DiesAfterReceipt())
    with pytest.raises(Killed):
        fill_shard(writer, ShardId(0, 0), rows)
    assert len(partials(writer.path)) == 4
    again = StoreWriter.open_or_create(tmp_path, rows.plan)
    assert again.pending() == [ShardId(0, 1), ShardId(1, 0)]
    assert not partials(writer.path)


def test_abort_after_a_failed_rename_keeps_the_files_of_the_receipt(tmp_path, rows):
    class FailsToRename(Files):
        def rename(self, source, target):
            if "/levels/" in str(target) and "/c/" in str(target):
                raise OSError(errno.EIO, "Input/output error")
            super().rename(source, target)

    writer = StoreWriter.open_or_create(tmp_path, rows.plan, files=FailsToRename())
    with pytest.raises(OSError, match="Input/output"):  # fill_shard aborts
        fill_shard(writer, ShardId(0, 0), rows)
    assert StoreWriter.open_or_create(tmp_path, rows.plan).pending() == [ShardId(0, 1), ShardId(1, 0)]


def test_a_committed_store_takes_no_more_shards(tmp_path, rows):
    late = StoreWriter.open_or_create(tmp_path, rows.plan)
    shard_writer = late.open_shard(ShardId(0, 0))
    for row in shard_writer.rows:
        shard_writer.skip(row, 1, "late", source_sha256=None)
    extract(tmp_path, rows)
    assert shard_writer.commit({}, {}) is False
    assert not partials(late.path) and verify_store(late.path, full=True).ok


def test_shards_of_different_versions_are_warned_of(tmp_path, rows, caplog):
    writer = StoreWriter.open_or_create(tmp_path, rows.plan)
    shard_writer = writer.open_shard(ShardId(0, 0))
    for row in shard_writer.rows:
        put(shard_writer, rows, row=row)
    shard_writer.commit({"numpy": "1", "device": "cpu"}, {})
    extract(tmp_path, rows)
    assert "different numpy: 1 and 2" in caplog.text and "different device: cpu and None" in caplog.text


def test_everything_may_be_skipped(tmp_path):
    plan = small_plan(levels=(P4, P5))
    everything = frozenset((s.bin, r) for s in plan.shards() for r in plan.shard_rows(s))
    extract(tmp_path, MadeRows(plan, skipped=everything))
    with open_store(tmp_path / plan.folder_name) as store:
        assert len(store) == 0 and len(store.skipped) == len(plan.rows)
        assert store.keys == () and store.views.shape == (0,)
    assert verify_store(tmp_path / plan.folder_name, full=True).ok
