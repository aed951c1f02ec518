"""Attempts: counted over runs and processes, one file each."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from stores.work.attempts import ATTEMPTS, Attempts, record_name
from stores.work.folder import WORK


def test_attempts_are_counted_over_runs(tmp_path: Path) -> None:
    one, other = Attempts(tmp_path), Attempts(tmp_path)
    assert one.add("a", "crashed") == ["crashed"]
    assert other.add("a", "no memory", times=2) == ["crashed", "no memory", "no memory"]
    assert Attempts(tmp_path).reasons("a") == ["crashed", "no memory", "no memory"]
    assert Attempts(tmp_path).reasons("b") == []
    assert Attempts(None).add("a", "crashed", times=2) == ["crashed", "crashed"]


def test_an_attempt_counts_while_it_lasts(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    with attempts.counted("a", "ended the process"):
        assert Attempts(tmp_path).reasons("a") == ["ended the process"]
        attempts.add("a", "crashed")
    assert Attempts(tmp_path).reasons("a") == ["crashed"]


def test_a_process_that_dies_leaves_its_attempt(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from stores.work.attempts import Attempts\n"
        "with Attempts(pathlib.Path(sys.argv[1])).counted('a', 'ended'): os.kill(os.getpid(), 9)"
    )
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert Attempts(tmp_path).reasons("a") == ["ended"]


def test_names_hold_for_any_key_and_foreign_files_count_nothing(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    for key in ("../a", "a\n", "\u00fc" * 300):
        attempts.add(record_name(key), "crashed")
        assert Attempts(tmp_path).reasons(record_name(key)) == ["crashed"]
    (tmp_path / WORK / ATTEMPTS / "a.x").write_text("")
    (tmp_path / WORK / ATTEMPTS / "a.\u0661").write_text("")
    assert Attempts(tmp_path).reasons("a") == []
    assert [path.name for path in tmp_path.iterdir()] == [WORK]


def test_what_cannot_be_counted_on_disk_is_counted_in_memory(tmp_path: Path) -> None:
    (tmp_path / WORK).write_text("a file")
    attempts = Attempts(tmp_path)
    assert attempts.add("a", "crashed", times=3) == ["crashed"] * 3 == attempts.reasons("a")
    with attempts.counted("a", "ended"):
        pass
