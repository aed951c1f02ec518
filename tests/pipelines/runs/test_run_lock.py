"""run.lock: one process writes a run; the dead are known at once, the distant by their counter."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.runs.run_lock import LOCK, RunLock, RunLocked, RunLockLost, read_holder, this_process
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file
from tests.pipelines.made_clip_stores import make_clip_store


class Time:
    """A clock that only sleeping moves; `events` happen when their second has come."""

    def __init__(self, events: dict[float, Callable[[], object]] | None = None) -> None:
        self.now_s, self._events = 0.0, dict(events or {})

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        for due in [at for at in self._events if at <= self.now_s]:
            self._events.pop(due)()


def lock_of(folder: Path, time: Time | None = None, take_over: bool = False) -> RunLock:
    time = time or Time()
    return RunLock(folder, take_over=take_over, clock=time.clock, sleep=time.sleep, beat_s=0)


def leave(folder: Path, **changes: object) -> Path:
    """A lock that nobody removes."""
    path = folder / LOCK
    path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(this_process(), **changes))))  # type: ignore[arg-type]
    return path


def a_dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_it_names_its_process_and_is_removed(tmp_path: Path) -> None:
    with lock_of(tmp_path) as lock:
        found = read_holder(lock.path)
        me = dataclasses.replace(this_process(), token=found.token if found else "")
        assert found == me and found.started is not None
        lock.check()
        for _ in range(2):
            lock.beat()
        now = read_holder(lock.path)
        assert now is not None and now.counter == 2
    assert not lock.path.exists()


def test_a_second_process_is_refused_and_the_first_one_named(tmp_path: Path) -> None:
    with (
        lock_of(tmp_path) as lock,
        pytest.raises(RunLocked, match=rf"process {this_process().pid} on .*--take-over"),
    ):
        lock_of(tmp_path).__enter__()
    assert not lock.path.exists()


@pytest.mark.parametrize("how", ["no such process", "its number given to another"])
def test_a_dead_holder_of_this_machine_is_known_at_once(how: str, tmp_path: Path) -> None:
    changes = {"pid": a_dead_pid()} if how == "no such process" else {"started": "1"}
    leave(tmp_path, **changes)
    time = Time()
    with lock_of(tmp_path, time) as lock:
        assert time.now_s == 0
        lock.check()


@pytest.mark.parametrize("elsewhere", [{"host": "other"}, {"boot_id": "other"}, {"pid_namespace": "other"}])
def test_a_holder_elsewhere_is_watched_for_120_seconds(elsewhere: dict[str, str], tmp_path: Path) -> None:
    leave(tmp_path, pid=a_dead_pid(), **elsewhere)
    time = Time()
    with lock_of(tmp_path, time):
        assert time.now_s == 120


def test_a_holder_elsewhere_whose_counter_moves_is_alive(tmp_path: Path) -> None:
    holder = dataclasses.replace(this_process(), host="other", pid=7)
    path = leave(tmp_path)

    def write(counter: int) -> None:
        path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(holder, counter=counter))))

    write(3)
    time = Time({15: lambda: write(4)})
    with pytest.raises(RunLocked, match="process 7 on other"):
        lock_of(tmp_path, time).__enter__()
    assert time.now_s == 15
    found = read_holder(path)
    assert found is not None and found.counter == 4


def test_a_lock_that_goes_while_it_is_watched_is_free(tmp_path: Path) -> None:
    path = leave(tmp_path, host="other")
    time = Time({30: path.unlink})
    with lock_of(tmp_path, time):
        assert time.now_s == 30


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1}'])
def test_a_lock_without_a_record_is_watched_too(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(content)
    time = Time()
    with lock_of(tmp_path, time):
        assert time.now_s == 120


def test_taken_over_the_former_holder_stops(tmp_path: Path) -> None:
    with lock_of(tmp_path) as first, lock_of(tmp_path, take_over=True) as second:
        with pytest.raises(RunLockLost, match="has taken it over"):
            first.check()
        first.beat()  # of a lock that is no longer there
        second.check()
        found = read_holder(second.path)
        assert found is not None and found.counter == 0
    assert not second.path.exists()


def test_of_two_that_judge_a_holder_gone_one_is_refused(tmp_path: Path) -> None:
    """The second one removes the lock that the first one has made meanwhile, and puts it back."""
    stale = read_holder(leave(tmp_path, pid=a_dead_pid()))
    with lock_of(tmp_path) as first:
        with pytest.raises(RunLocked):
            lock_of(tmp_path)._remove(stale)
        first.check()
    assert list(tmp_path.iterdir()) == []


HOLD = """
import sys
from pathlib import Path
from pipelines.runs.run_lock import RunLock
with RunLock(Path(sys.argv[1]), beat_s=0.01) as lock:
    print("held", flush=True)
    sys.stdin.read()
"""


def held_by_a_process(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_killed_process_is_followed_at_once(tmp_path: Path) -> None:
    process = held_by_a_process(tmp_path)
    with pytest.raises(RunLocked, match=f"process {process.pid} on"):
        lock_of(tmp_path).__enter__()
    process.kill()
    process.communicate()
    assert (tmp_path / LOCK).exists()
    time = Time()
    with lock_of(tmp_path, time):
        assert time.now_s == 0


def test_its_counter_is_rewritten_while_a_process_works(tmp_path: Path) -> None:
    process = held_by_a_process(tmp_path)
    try:
        first = read_holder(tmp_path / LOCK)
        while (now := read_holder(tmp_path / LOCK)) == first:
            assert process.poll() is None
        assert first is not None and now is not None and now.counter > first.counter
    finally:
        process.communicate()
    assert not (tmp_path / LOCK).exists()


TRAIN = """
import sys
from pipelines.__main__ import main
from pipelines.training.module import HeadModule
step = HeadModule.training_step
def paused(self, *args):
    if self.global_step == 1:
        print("in training", flush=True)
        sys.stdin.readline()
    return step(self, *args)
HeadModule.training_step = paused
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.ci  # three processes load torch
def test_of_two_processes_on_one_run_one_is_refused(tmp_path: Path) -> None:
    """And the one that holds it stops before its next write once it is taken over."""
    make_clip_store(tmp_path / "features", records=8, views=1)
    run = tmp_path / "run"
    words = (
        f"train-head --head linear --stores {tmp_path / 'features'} --run {run} --batch-size 4 --device cpu"
    )
    words += " --threads 1 --log-every 1 --checkpoint-every 1 --max-steps 3"
    first = subprocess.Popen(
        [sys.executable, "-c", TRAIN, *words.split()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdout is not None and first.stdout.readline() == "in training\n"
    resume = [sys.executable, "-m", "pipelines", "train-head", "--resume", "--run", str(run)]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != LOCK}
    second = subprocess.run(resume, capture_output=True, text=True)
    assert second.returncode == 2 and f"process {first.pid} on" in second.stderr, second.stderr
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != LOCK}
    assert after == before
    third = subprocess.run([*resume, "--take-over"], capture_output=True, text=True)
    assert third.returncode == 0, third.stderr
    done = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    _, message = first.communicate("\n")
    assert first.returncode == 1 and "is no longer written by this process" in message, message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == done
