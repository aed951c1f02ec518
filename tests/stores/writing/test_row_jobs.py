"""Large rows, which several threads check, digest and write at once."""

import errno
import threading
from pathlib import Path

import numpy as np
import pytest

from stores.checks.verify import verify_store
from stores.errors import CodecError
from stores.format.pixel_differences import PIXEL_DIFFERENCES
from stores.format.plan import Bin, ShardId
from stores.pyramid import Level
from stores.shards.disk import Files
from stores.writing.row_jobs import LARGE_BYTES, TOGETHER_BYTES, RowJobs, _together
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import NEW_LAYOUT, P5, MadeRows, extract, fill_shard, small_plan
from tests.unsynced import unsynced  # noqa: F401 - a fixture of this module

P2 = Level(name="p2", stride_px=4, channels=40, stage=1)
BINS = (Bin(height_px=256, width_px=256, rows=7, shard_rows=4),)


def large_rows() -> MadeRows:
    required = (*NEW_LAYOUT["required_features"], PIXEL_DIFFERENCES)
    plan = small_plan(
        bins=BINS, levels=(P2, P5), pixels=True, required_features=required, own_shards=("labels",)
    )
    return MadeRows(plan, skipped=frozenset({(0, 2)}))


def test_threads_write_the_bytes_that_one_thread_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = large_rows()
    assert rows.encoded(0, 0)["p2"]["q"].nbytes >= LARGE_BYTES
    extract(tmp_path / "threads", rows)
    monkeypatch.setattr(RowJobs, "is_large", lambda *_: False)
    extract(tmp_path / "one thread", rows)
    stores = [tmp_path / name / rows.plan.folder_name for name in ("threads", "one thread")]
    assert all(verify_store(store, full=True).ok for store in stores)
    files = [
        {path.relative_to(store): path.read_bytes() for path in (store / "bins").rglob("*") if path.is_file()}
        for store in stores
    ]
    assert len(files[0]) > 8 and files[0] == files[1]


class TwoAtOnce(Files):
    """The first write of a large array waits for another one beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier, self.met = threading.Barrier(2), threading.Event()

    def write(self, fd, parts, offset):
        if sum(map(len, parts)) >= LARGE_BYTES and not self.met.is_set():
            self.barrier.wait(60)
            self.met.set()
        return super().write(fd, parts, offset)


def test_two_large_rows_are_written_at_once(tmp_path: Path) -> None:
    rows, files = large_rows(), TwoAtOnce()
    writer = StoreWriter.open_or_create(tmp_path, rows.plan, files=files)
    shard = writer.open_shard(ShardId(0, 0))
    for row in (0, 1):
        put(shard, rows, row)
    shard.wait()
    shard.abort()
    assert files.met.is_set()


def test_arrays_of_a_row_are_work_of_one_thread_up_to_a_limit() -> None:
    jobs, threads = RowJobs(), list[set[str]]()
    for length in (LARGE_BYTES, TOGETHER_BYTES):
        seen: set[str] = set()
        jobs.run([(length, lambda seen=seen: seen.add(threading.current_thread().name))] * 4)
        jobs.wait()
        threads.append(seen)
    assert len(threads[0]) == 1 and threading.current_thread().name not in threads[0] | threads[1]
    assert [length for length, _ in _together([(TOGETHER_BYTES, print)] * 2 + [(1, print)])] == [
        *(TOGETHER_BYTES, TOGETHER_BYTES, 1)
    ]


def put(shard, rows: MadeRows, row: int, **changed) -> None:
    fields = {
        "levels": rows.encoded(0, row),
        "targets": rows.targets(0, row),
        "source_sha256": bytes(32),
        "pixels": rows.pixels(0, row),
    }
    shard.put(row, **{**fields, **changed})


def test_a_code_that_no_encoder_produces_is_found_before_the_commit(tmp_path: Path) -> None:
    rows = large_rows()
    shard = StoreWriter.open_or_create(tmp_path, rows.plan).open_shard(ShardId(0, 0))
    levels = rows.encoded(0, 0)
    levels["p2"]["q"].reshape(-1)[-1] = -128
    with pytest.raises(CodecError, match="row 0, level p2: q holds -128"):
        put(shard, rows, 0, levels=levels)
        shard.wait()
    shard.abort()
    assert list(tmp_path.rglob("*.partial")) == []


class Full(Files):
    """No room for a large array."""

    def write(self, fd, parts, offset):
        if sum(map(len, parts)) >= LARGE_BYTES:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(fd, parts, offset)


def test_a_full_disk_is_an_error_of_the_commit_at_the_latest(tmp_path: Path) -> None:
    rows = large_rows()
    writer = StoreWriter.open_or_create(tmp_path, rows.plan, files=Full())
    with pytest.raises(OSError, match=r"No space left on device: .*p2") as error:
        fill_shard(writer, ShardId(0, 0), rows)
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.rglob("*.partial")) == []


def test_jobs_that_wait_are_bounded() -> None:
    jobs, go, begun = RowJobs(), threading.Event(), []

    def job() -> None:
        go.wait(60)
        begun.append(1)

    def start_all() -> None:
        for _ in range(jobs.most + 100):
            jobs.run([(LARGE_BYTES, job)])
            started.append(1)

    started: list[int] = []
    thread = threading.Thread(target=start_all)
    thread.start()
    while len(started) < jobs.most:
        assert thread.is_alive()
    assert len(started) <= jobs.most + 1
    go.set()
    thread.join()
    jobs.wait()
    assert len(begun) == jobs.most + 100


def test_the_end_leaves_no_job_behind() -> None:
    jobs, done = RowJobs(), []
    for number in range(20):
        jobs.run([(LARGE_BYTES, lambda number=number: done.append(np.zeros(number)))])
    jobs.end()
    before = len(done)
    jobs.wait()
    assert len(done) == before
