"""Real processes: killed with SIGKILL, and several writing one store."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stores.format.plan import ShardId
from tests.faults.killed_writer import writer_of
from tests.faults.made_stores import extract
from tests.faults.outcomes import assert_finished, store_files, without_writers
from tests.faults.test_two_writers import assert_nothing_beside, assert_one_winner_each
from tests.faults.test_write_faults import assert_whole_or_unfinished

REPOSITORY = Path(__file__).parents[2]
OPERATIONS = 900
"""An extraction takes a few more."""


def start(root: Path, seed: int, kill_at: int = -1) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.faults.killed_writer", str(root), str(seed), str(kill_at)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE)


def kill_and_run_again(folder: Path, purpose: str, times: int) -> None:
    """Kills one process after another, each at a later operation, then lets one finish."""
    rows, random_points = writer_of(0), random.Random(purpose)
    extract(folder / "clean", rows)
    clean = without_writers(store_files(folder / "clean" / rows.plan.folder_name))
    path = folder / "killed" / rows.plan.folder_name
    for _ in range(times):
        child = start(folder / "killed", 0, random_points.randrange(OPERATIONS // times))
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        assert_whole_or_unfinished(path, rows)
    last = start(folder / "killed", 0)
    last.communicate()
    assert last.returncode == 0
    assert_finished(path, rows, clean)


def test_sigkill(memory_path: Path) -> None:
    kill_and_run_again(memory_path, "once", 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("times", [1, 3])
def test_sigkill_at_many_points(memory_path: Path, seed: int, times: int) -> None:
    kill_and_run_again(memory_path, f"{times} of {seed}", times)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4])
def test_several_processes_write_one_store(memory_path: Path, count: int) -> None:
    children = [start(memory_path, seed) for seed in range(count)]
    winners = {}
    for seed, child in enumerate(children):
        printed = child.communicate()[0]
        assert child.returncode == 0
        for bin_index, shard in json.loads(printed):
            assert ShardId(bin_index, shard) not in winners
            winners[ShardId(bin_index, shard)] = writer_of(seed)
    plan = writer_of(0).plan
    assert winners.keys() == set(plan.shards())
    assert_one_winner_each(memory_path / plan.folder_name, winners)
    assert_nothing_beside(memory_path / plan.folder_name)
