"""Two `extract` commands at once on one store, as two users type them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stores import verify_store
from tests.pipelines.extraction.verb import TRAINING

PROJECT = Path(__file__).parents[3]


@pytest.mark.ci
def test_two_commands_share_a_store(words: list[str]) -> None:
    command = [sys.executable, "-m", "pipelines", "extract", *words, "--shard-rows", "1", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            command, cwd=PROJECT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    ended = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    one, other = (json.loads(out.splitlines()[-1]) for out, _ in ended)
    assert one["rows_written"] + other["rows_written"] == TRAINING
    for each in (one, other):
        if not each["done_before"]:  # it may have come when all was done
            assert each["shards_lost"] == 0 and each["total_rows_written"] == TRAINING
    assert verify_store(one["store"], full=True).ok
