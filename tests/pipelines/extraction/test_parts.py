"""`extract` as one of several parts, and stopped after its running shard."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import extract.extractor.run
from extract.views.recipes import RandomCrops
from stores import open_store, verify_store
from tests.extract.extractor.extraction import row_digests
from tests.pipelines.extraction.verb import TRAINING, result
from tests.stores.work.test_claims import write_claim

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("flag", "expected"),
    [("--part 3", "0/8, auto/8 or none"), ("--part 0/0", "0/8"), ("--stop-after 230", "units such as 3h50m")],
)
def test_flags_that_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str], flag: str, expected: str
) -> None:
    code, _, _, err = result(capsys, "extract", *words, *flag.split())
    assert code == 2 and expected in err


def in_first_batch(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """Calls `action` once, when the first extraction has computed its first batch."""
    compute, done = extract.extractor.run._Run._compute, []

    def after(self: Any, *arguments: Any) -> None:
        compute(self, *arguments)
        if not done:
            done.append(True)
            action()

    monkeypatch.setattr(extract.extractor.run._Run, "_compute", after)


@pytest.mark.parametrize("views", ["1", "2"])
def test_two_parts_are_one_writer(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    views: str,
) -> None:
    """Part 1 does all its work while part 0 is in its first shard: it helps with all others, and leaves that
    one, which part 0 finishes, and the store with it."""
    words = [*words, "--shard-rows", "2", "--batch-size", "1", "--workers", "1", "--views", views]
    at = words.index("--stores") + 1
    alone = result(capsys, "extract", *words[:at], str(tmp_path / "alone"), *words[at + 1 :])[1]
    second: list[tuple[int, dict[str, Any], str, str]] = []
    in_first_batch(monkeypatch, lambda: second.append(result(capsys, "extract", *words, "--part", "1/2")))
    first = result(capsys, "extract", *words, "--part", "0/2")
    (code, one, out, _), rows = second[0], TRAINING * int(views)
    assert (code, first[0]) == (0, 0)
    assert out.startswith("part 0/2, counted from 0: --part 0/2\n") and (one["part"], one["parts"]) == (1, 2)
    assert "\npart 1/2, counted from 0: --part 1/2\n" in out
    left = one["shards_left"]
    assert left >= 1 and f"part 1/2 is done, {left} shard" in out and "left elsewhere" in out
    assert f"at work: process {os.getpid()}" in out and one["manifest_digest"] is None
    zero = first[1]
    assert zero["rows_written"] + one["rows_written"] == rows == zero["total_rows_written"]
    assert one["shards_written"] == zero["shards_elsewhere"] > 0
    assert zero["shards_written"] + one["shards_written"] == rows // 2
    assert one["shards_elsewhere"] == zero["shards_left"] == zero["shards_lost"] == 0
    assert row_digests(Path(zero["store"])) == row_digests(Path(alone["store"]))
    with open_store(zero["store"]) as made, open_store(alone["store"]) as other:
        assert made.manifest_digest == zero["manifest_digest"]
        assert made.plan.identity_digest == other.plan.identity_digest
    assert verify_store(zero["store"], full=True).ok


def test_a_signal_finishes_the_running_shard_and_a_rerun_the_store(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "--shard-rows", "2", "--batch-size", "1", "--workers", "1"]
    with monkeypatch.context() as once:
        in_first_batch(once, lambda: os.kill(os.getpid(), signal.SIGTERM))
        code, summary, out, _ = result(capsys, "extract", *words)
    assert (code, summary["rows_written"], summary["shards_left"]) == (0, 2, 2)
    assert summary["stopped_by"] == "SIGTERM"
    assert "is not complete, stopped by SIGTERM: 2 shards left; 2 rows, 0 skipped; in this run 2 rows" in out
    assert f"next: python -m pipelines status --store {summary['store']}" in out
    assert not list((Path(summary["store"]) / "work" / "claims").iterdir())
    code, summary, out, _ = result(capsys, "extract", *words, "--stop-after", "0s")
    assert (code, summary["rows_written"], summary["shards_left"]) == (0, 0, 2)
    assert summary["stopped_by"] == "--stop-after 0s"
    code, summary, out, _ = result(capsys, "extract", *words, "--stop-after", "1h")
    assert (code, summary["rows_written"], summary["shards_left"]) == (0, 4, 0)
    assert summary["stopped_by"] is None and verify_store(summary["store"], full=True).ok


def test_a_number_of_shards_ends_a_run(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [*words, "--shard-rows", "1", "--batch-size", "1", "--max-shards", "2"]
    lefts = []
    for number in range(3):
        code, summary, out, _ = result(capsys, "extract", *words, "--part", f"{number}/3")
        lefts.append(summary["shards_left"])
        assert (code, summary["shards_written"]) == (0, 2)
        if lefts[-1]:
            assert summary["stopped_by"] == "--max-shards 2" and "stopped by --max-shards 2: " in out
    assert lefts == [4, 2, 0] and summary["stopped_by"] is None
    assert verify_store(summary["store"], full=True).ok


def test_a_resume_takes_its_rows_from_the_plan(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "--shard-rows", "1", "--batch-size", "1"]
    store = Path(result(capsys, "extract", *words, "--max-shards", "2")[1]["store"])
    assert (store / "work" / "sources").is_file()
    with monkeypatch.context() as resume:
        resume.setattr(RandomCrops, "view", None)
        code, summary, _, _ = result(capsys, "extract", *words)
    assert (code, summary["rows_written"], summary["shards_left"]) == (0, TRAINING - 2, 0)
    assert verify_store(store, full=True).ok and not (store / "work").exists()


def test_a_part_takes_over_from_a_machine_that_fell_silent(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not wait to watch the counter: the claim's age on the disk decides."""
    words = [*words, "--shard-rows", "2", "--part", "0/1"]
    store = Path(result(capsys, "extract", *words, "--stop-after", "0s")[1]["store"])
    for name, age_s in (("64x64-0", 0), ("64x64-1", 1000)):
        write_claim(store, name, host="elsewhere", pid=7, token=name)
        moved = time.time() - age_s
        os.utime(store / "work" / "claims" / name, (moved, moved))
    code, summary, out, _ = result(capsys, "extract", *words)
    assert (code, summary["shards_written"], summary["shards_left"]) == (0, 2, 1)
    assert "1 shard left elsewhere" in out and "at work: process 7 on elsewhere" in out


@pytest.mark.parametrize(
    ("killed", "commits"),
    [
        pytest.param(killed, commits, marks=pytest.mark.ci if killed + commits == 1 else pytest.mark.slow)
        for killed in (0, 1)
        for commits in (1, 2, 3, 4)
    ],
)
def test_one_of_two_parts_is_killed(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], killed: int, commits: int
) -> None:
    """After so many commits of both; the killed task again completes the store, whatever was done."""
    words = [*words, "--shard-rows", "1", "--batch-size", "1", "--json"]
    at = words.index("--stores") + 1
    alone = result(capsys, "extract", *words[:at], str(tmp_path / "alone"), *words[at + 1 :])[1]

    def start(number: int) -> subprocess.Popen[str]:
        slurm = {f"SLURM_ARRAY_TASK_{name}": str(n) for name, n in (("ID", number), ("MIN", 1), ("MAX", 2))}
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines", "extract", *words],
            cwd=PROJECT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **slurm},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    running = [start(number) for number in (1, 2)]
    receipts = tmp_path / "features" / Path(alone["store"]).name / "receipts"
    while len(list(receipts.glob("*"))) < commits and running[killed].poll() is None:
        time.sleep(0.005)
    running[killed].kill()
    ended = [process.communicate() for process in running]
    other = 1 - killed
    assert running[other].returncode == 0, ended
    part = f"part {other}/2, counted from 0: task {other + 1} of the SLURM array 1-2\n"
    assert ended[other][0].startswith(part)
    out, err = start(killed + 1).communicate()
    last = json.loads(out.splitlines()[-1])
    assert last["shards_left"] == 0, err
    assert row_digests(Path(last["store"])) == row_digests(Path(alone["store"]))
    assert verify_store(last["store"], full=True).ok


@pytest.mark.ci
def test_two_processes_of_one_command(
    words: list[str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    at = words.index("--device")
    words = [*words[:at], *words[at + 2 :], "--devices", "cpu:2", "--shard-rows", "1", "--batch-size", "1"]
    code, summary, _, err = result(capsys, "extract", *words, "--stop-after", "0s")
    assert (code, summary["rows_written"], summary["shards_left"]) == (0, 0, TRAINING), err
    assert summary["stopped_by"] == "--stop-after 0s"
    code, summary, out, err = result(capsys, "extract", *words)
    assert (code, summary["rows_written"], summary["shards_left"]) == (0, TRAINING, 0), err
    assert (summary["shards_written"], summary["processes"]) == (TRAINING, 2)
    assert "2 processes: cpu, cpu" in out and f"{TRAINING} rows written, 0 skipped by 2 processes" in out
    assert "process 0 (cpu): " in err and "process 1 (cpu): " in err
    assert f": {TRAINING} of {TRAINING} rows, " in caplog.text
    assert "; shard 64x64-" not in err, "one line of progress for both"
    assert summary["total_rows_written"] == TRAINING
    assert verify_store(summary["store"], full=True).ok


@pytest.mark.ci
def test_an_interrupt_ends_all_processes(words: list[str], tmp_path: Path) -> None:
    """They give their claims back, and leave nothing of their unfinished shards."""
    at = words.index("--device")
    words = [*words[:at], *words[at + 2 :], "--devices", "cpu:2", "--views", "200", "--shard-rows", "1"]
    command = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "extract", *words],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A program that a shell runs in the background, tests under CI among them, ignores interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    features = tmp_path / "features"
    while not list(features.glob("*/work/claims/*")) and command.poll() is None:
        time.sleep(0.01)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate()
    assert command.returncode == 130, err
    assert "interrupted; to continue: python -m pipelines extract" in err
    (store,) = (path for path in features.iterdir() if path.is_dir())
    assert not list((store / "work" / "claims").iterdir())
