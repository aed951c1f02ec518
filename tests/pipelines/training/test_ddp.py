"""A run on two processes that torchrun starts: the same rows, averaged gradients, one folder."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.config import OptimizerConfig, ScheduleConfig, TrainConfig
from pipelines.runs import run_folder as runs
from pipelines.runs.metrics_csv import read_metrics
from pipelines.runs.trained_head import load_head
from pipelines.verbs import train_head
from tests.pipelines.made_stores import make_store

STEPS = 6
DRIVER = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from pipelines.training.module import HeadModule
seen, step = [], HeadModule.training_step
def watched(self, batch, number):
    seen.append(list(batch.keys))
    return step(self, batch, number)
HeadModule.training_step = watched
from pipelines.__main__ import main
for words in json.loads(sys.argv[1]):
    code = main(words)
    if code:
        sys.exit(code)
(Path(sys.argv[2]) / f"rank{os.environ['RANK']}.json").write_text(json.dumps(seen))
"""


def torchrun(commands: list[list[str]], folder: Path) -> subprocess.CompletedProcess[str]:
    driver = folder / "driver.py"
    driver.write_text(DRIVER)
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(str(driver), json.dumps(commands), str(folder)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.ci  # three more processes load torch
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    store = make_store(tmp_path, records=6)
    config = TrainConfig(
        head="linear",
        store=(str(store),),
        run=str(tmp_path / "one"),
        device="cpu",
        threads=1,
        batch_size=4,
        max_steps=STEPS,
        optimizer=OptimizerConfig(lr=1e-2, clip_norm=1.0),
        schedule=ScheduleConfig(warmup_steps=0),
        log_every=1,
        checkpoint_every=3,
    )
    train_head.run(config)
    train_head.run(dataclasses.replace(config, run=str(tmp_path / "start")))
    for step, path in runs.checkpoints(tmp_path / "start").items():
        if step > 3:
            path.unlink()
    words = ["train-head", "--config", str(tmp_path / "one" / "config.yaml"), "--run"]
    resume = ["train-head", "--resume", "--run", str(tmp_path / "start")]
    done = torchrun([[*words, str(tmp_path / "two")], resume], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("6 steps, loss") == 2  # rank 0 alone reports, of each run

    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [len(rank) for rank in ranks] == [STEPS + 3] * 2
    steps = list(zip(*ranks, strict=True))[:STEPS]
    keys = [key for step in steps for pair in zip(*step, strict=True) for key in pair]  # ranks take turns
    for epoch in range(STEPS * 4 // 6):  # an exact partition: each record once an epoch
        assert len(set(keys[6 * epoch : 6 * epoch + 6])) == 6

    for name in ("two", "start"):
        head, expected = (
            load_head(tmp_path / run, torch.device("cpu"))[0].state_dict() for run in (name, "one")
        )
        # the mean of two means of equal counts is the mean of all, but for the order of sums
        for parameter, value in expected.items():
            torch.testing.assert_close(head[parameter], value, rtol=1e-3, atol=1e-5)
        losses, alone = ([float(row["loss"]) for row in _losses(tmp_path / run)] for run in (name, "one"))
        torch.testing.assert_close(torch.tensor(losses), torch.tensor(alone), rtol=1e-4, atol=1e-5)


def _losses(run: Path) -> list[dict[str, str]]:
    return [row for row in read_metrics(run / runs.METRICS) if "loss" in row]
