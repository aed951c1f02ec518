"""Claims: one process a shard, free again when its process is gone."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stores.checks.garbage import gc_orphans
from stores.checks.status import store_status
from stores.checks.verify import verify_store
from stores.errors import PlanError
from stores.format.manifest import MANIFEST_NAME
from stores.work.claims import CLAIMS, Claims, claims_of, live_claims
from stores.work.folder import WORK
from stores.work.holder import this_process
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import MadeRows, fill_shard, small_plan

ROWS = MadeRows(small_plan())
FIRST = "32x64-0"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def ended_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def write_claim(root: Path, name: str, **changes: object) -> Path:
    """A claim of another process."""
    path = root / WORK / CLAIMS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = dataclasses.replace(this_process(), **changes)  # type: ignore[arg-type]
    path.write_text(json.dumps(dataclasses.asdict(holder)))
    return path


def test_a_shard_has_one_claim(tmp_path: Path) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)
    assert one.take("a") and one.take("a")
    assert not other.take("a")
    assert other.take("b")
    assert {name: holder and holder.token for name, holder in claims_of(tmp_path).items()} == {
        "a": one.token,
        "b": other.token,
    }
    assert set(one.others()) == {"b"}
    one.release("a")
    one.release("a")
    assert other.take("a")
    other.release_all()
    assert claims_of(tmp_path) == {}


def test_a_process_that_ended_here_is_known_at_once(tmp_path: Path) -> None:
    deaths: list[str] = []
    write_claim(tmp_path, "a", pid=ended_process(), token="gone")
    claims = Claims(tmp_path, on_death=deaths.append)
    assert claims.others() == {} == live_claims(tmp_path)
    assert claims.take("a")
    assert deaths == ["a"]
    assert list(claims_of(tmp_path)) == ["a"]


def test_a_pid_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    write_claim(tmp_path, "a", pid=os.getpid(), started="1", token="gone")
    assert Claims(tmp_path).take("a")


@pytest.mark.parametrize("host", ["elsewhere", None])
def test_a_counter_that_stands_still_frees_the_shard(tmp_path: Path, host: str | None) -> None:
    """Also on this machine: a process that hangs is alive."""
    clock = Clock()
    changes = {} if host is None else {"host": host, "pid": 7}
    write_claim(tmp_path, "a", token="t", **changes)
    deaths: list[str] = []
    claims = Claims(tmp_path, stall_s=600, clock=clock, on_death=deaths.append)
    assert not claims.take("a")
    clock.now = 599
    assert not claims.take("a")
    write_claim(tmp_path, "a", token="t", counter=1, **changes)
    clock.now = 700
    assert not claims.take("a"), "it has moved"
    clock.now = 1299
    assert not claims.take("a")
    clock.now = 1300
    assert claims.take("a") and deaths == ["a"]


def test_a_claim_without_a_record_is_watched(tmp_path: Path) -> None:
    """Its process is just writing it, or died while it did."""
    clock = Clock()
    path = write_claim(tmp_path, "a")
    path.write_text("")
    claims = Claims(tmp_path, clock=clock)
    assert not claims.take("a")
    clock.now = 600
    assert claims.take("a")


def test_the_counter_is_rewritten_now_and_then(tmp_path: Path) -> None:
    clock = Clock()
    claims = Claims(tmp_path, clock=clock, beat_s=15)

    def counters() -> list[int]:
        return [holder.counter for holder in claims_of(tmp_path).values() if holder]

    claims.take("a")
    claims.take("b")
    claims.beat()
    assert counters() == [0, 0]
    clock.now = 15
    claims.beat()
    assert counters() == [1, 1]


def test_a_claim_that_was_taken_over_is_left_alone(tmp_path: Path) -> None:
    clock = Clock()
    slow, quick = Claims(tmp_path), Claims(tmp_path, clock=clock)
    slow.take("a")
    quick.take("a")
    clock.now = 600
    assert quick.take("a")
    slow.beat(now=True)
    slow.release("a")
    assert [holder and holder.token for holder in claims_of(tmp_path).values()] == [quick.token]


def test_of_two_that_find_it_stalled_one_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one read the claim before the first replaced it."""
    write_claim(tmp_path, "a", pid=ended_process(), token="gone")
    first, second = Claims(tmp_path), Claims(tmp_path)
    is_gone = second._is_gone

    def late(name: str, holder: object) -> bool:
        monkeypatch.setattr(second, "_is_gone", is_gone)
        assert first.take(name)
        return True

    monkeypatch.setattr(second, "_is_gone", late)
    assert not second.take("a")
    assert [holder and holder.token for holder in claims_of(tmp_path).values()] == [first.token]


def test_claims_that_cannot_be_written_stop_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / WORK).write_text("a file")
    claims = Claims(tmp_path)
    assert claims.take("a") and claims.take("b")
    claims.beat(now=True)
    claims.release_all()
    assert caplog.text.count("claims cannot be written") == 1


def begun(root: Path) -> tuple[StoreWriter, Path]:
    """A store with a shard in progress: partial files, no receipt."""
    writer = StoreWriter.open_or_create(root, ROWS.plan)
    writer.claims.take(FIRST)
    writer.open_shard(writer.pending()[0])
    return writer, writer.path


def partials(path: Path) -> list[str]:
    return sorted(file.name for file in path.rglob("*.partial"))


def test_gc_spares_a_writer_that_lives(tmp_path: Path) -> None:
    writer, path = begun(tmp_path)
    before = partials(path)
    assert before and gc_orphans(path, delete=True) == []
    assert partials(path) == before
    assert store_status(path).claimed == {FIRST: f"process {os.getpid()} on {this_process().host}"}
    writer.claims.release_all()
    assert len(gc_orphans(path, delete=True)) == len(before)
    assert not partials(path)
    assert store_status(path).claimed == {}


def test_gc_removes_what_no_living_process_has_claimed(tmp_path: Path) -> None:
    """A killed writer's shard, beside another's that is in progress."""
    writer, path = begun(tmp_path)
    spared = partials(path)
    dead = StoreWriter.open_or_create(tmp_path, ROWS.plan)
    dead.open_shard(dead.pending()[1])
    write_claim(path, "32x64-1", pid=ended_process(), token="gone")
    (path / "rows" / "tables.partial").write_text("which writer made it cannot be known")
    wanted = sorted(file for file in path.rglob("*.partial") if file.name not in spared)
    wanted.remove(path / "rows" / "tables.partial")
    assert wanted and [orphan.path for orphan in gc_orphans(path, delete=True)] == wanted
    assert partials(path) == sorted([*spared, "tables.partial"])
    writer.claims.release_all()
    gc_orphans(path, delete=True)
    assert not partials(path)


@pytest.mark.parametrize("age_s", [0, 599, 601])
def test_gc_judges_another_machine_by_the_clock_of_the_file_system(tmp_path: Path, age_s: int) -> None:
    writer, path = begun(tmp_path)
    before = len(partials(path))
    writer.claims.release_all()
    claim = write_claim(path, FIRST, host="elsewhere", pid=7)
    now = claim.stat().st_mtime
    os.utime(claim, (now - age_s, now - age_s))
    assert len(gc_orphans(path)) == (before if age_s > 600 else 0)


def test_gc_survives_files_that_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, path = begun(tmp_path)
    writer.claims.release_all()
    vanishing = next(path.rglob("*.partial"))
    lstat = Path.lstat

    def late(file: Path) -> os.stat_result:
        if file == vanishing:
            vanishing.unlink(missing_ok=True)
        return lstat(file)

    monkeypatch.setattr(Path, "lstat", late)
    found = gc_orphans(path, delete=True)
    assert found and vanishing not in {orphan.path for orphan in found}
    assert not partials(path)


def test_the_work_folder_is_no_part_of_a_store_and_ends_with_it(tmp_path: Path) -> None:
    writer, path = begun(tmp_path)
    writer.claims.release_all()
    for shard in writer.pending():
        writer.claims.take(ROWS.plan.shard_name(shard))
        fill_shard(writer, shard, ROWS)
    assert (path / WORK).is_dir()
    writer.finish()
    assert not (path / WORK).exists()
    late = write_claim(path, FIRST)
    gc_orphans(path)
    assert verify_store(path).ok and late.exists()
    assert late in {orphan.path for orphan in gc_orphans(path, delete=True)}
    assert not (path / WORK).exists() and (path / MANIFEST_NAME).exists()


def test_batches_do_not_change_under_another_writer(tmp_path: Path) -> None:
    writer, other = (StoreWriter.open_or_create(tmp_path, ROWS.plan) for _ in range(2))
    other.claims.take(FIRST)
    with pytest.raises(PlanError, match=rf"process {os.getpid()} on .*{FIRST}.*wait for it"):
        writer.set_batch_rows([1, 1])
    assert list(tmp_path.iterdir()) == [writer.path]
    other.claims.release_all()
    write_claim(writer.path, FIRST, pid=ended_process(), token="gone")
    writer.claims.take("32x64-1")
    writer.set_batch_rows([1, 1])
    assert [b.batch_rows for b in writer.plan.bins] == [1, 1]
