"""A training run from stores: it learns, is written down, refused where it must be, resumed exactly."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipelines.__main__ import main
from pipelines.catalog.known_weights import remember_weights
from pipelines.config import OptimizerConfig, ScheduleConfig, TrainConfig
from pipelines.feed.joined_stores import JoinedStores
from pipelines.runs import run_folder as runs
from pipelines.runs.metrics_csv import read_metrics
from pipelines.runs.trained_head import load_head
from pipelines.verbs import train_head
from stores.errors import IdentityError
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file
from tests.pipelines.extracted import extract_store, write_coloured_data
from tests.pipelines.made_stores import make_store

STEPS = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the images were, before the stores took their place."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def stores(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    images = write_coloured_data(data)
    extract_store(images, folder, "float16", "training", 2)
    extract_store(images, folder, "float16", "validation")
    shutil.rmtree(data)
    return folder


def config_of(stores: Path, run: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        head="bifpn1",
        head_settings={"width": 16, "norm": "bn"},
        stores=str(stores),
        run=str(run),
        max_steps=STEPS,
        batch_size=4,
        optimizer=OptimizerConfig(lr=1e-2),
        schedule=ScheduleConfig(warmup_steps=2),
        device="cpu",
        threads=1,
        log_every=1,
        val_every=8,
        checkpoint_every=5,
        keep_checkpoints=0,
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def finished(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, train_head.run(config_of(stores, folder))


def losses_of(run: Path) -> list[tuple[str, str, str]]:
    rows = [row for row in read_metrics(run / runs.METRICS) if "loss" in row]
    return [(row["step"], row["lr"], row["loss"]) for row in rows]


def test_a_run_learns_and_logs_it(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    losses = [float(loss) for _, _, loss in losses_of(folder)]
    assert len(losses) == STEPS
    assert losses[-1] < 0.7 * losses[0]
    assert summary["loss"] == losses[-1]
    assert summary["mIoU"] > 0.1  # one class everywhere gives 0.05
    assert summary["steps"] == STEPS


def test_a_run_is_recorded(finished: tuple[Path, dict[str, Any]], stores: Path) -> None:
    folder, _ = finished
    record = runs.read_run(folder)
    assert (record.head, record.dataset, record.levels) == ("bifpn1", "ade20k", ("p2", "p3", "p4", "p5"))
    assert record.stores_folder == str(stores.resolve())
    assert record.verify == "always"
    assert {"torch", "lightning", "zarr"} <= set(record.versions)
    assert len(record.stores) == 1 and Path(record.stores[0].path).is_dir()
    assert yaml.safe_load((folder / "config.yaml").read_text())["max_steps"] == STEPS
    assert list(runs.checkpoints(folder)) == [5, 10, 15, 20, 24]
    assert (folder / runs.CURVES).read_bytes().startswith(b"\x89PNG")
    assert [row["step"] for row in read_metrics(folder / runs.METRICS) if "mIoU" in row] == ["8", "16", "24"]


def test_rate_follows_the_schedule(finished: tuple[Path, dict[str, Any]]) -> None:
    rates = [float(rate) for _, rate, _ in losses_of(finished[0])]
    assert rates[0] == pytest.approx(1e-2 * 1e-6)
    assert rates[2:] == pytest.approx([1e-2 * (1 - step / STEPS) for step in range(2, STEPS)])


def test_checkpoints_hold_only_tensors_and_numbers(finished: tuple[Path, dict[str, Any]]) -> None:
    _, path = runs.last_checkpoint(finished[0])
    assert torch.load(path, weights_only=True)["global_step"] == STEPS


def test_trained_head_loads(finished: tuple[Path, dict[str, Any]]) -> None:
    head, step = load_head(finished[0], torch.device("cpu"))
    assert step == STEPS and not head.training
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_resumes_from_any_checkpoint_bit_for_bit(
    finished: tuple[Path, dict[str, Any]], stores: Path, tmp_path: Path
) -> None:
    folder, _ = finished
    copy = tmp_path / "copy"
    (copy / runs.CHECKPOINTS).mkdir(parents=True)
    for name in (runs.RUN_RECORD, "config.yaml", runs.METRICS):
        (copy / name).write_bytes((folder / name).read_bytes())
    runs.checkpoint_path(copy, 10).write_bytes(runs.checkpoint_path(folder, 10).read_bytes())
    train_head.run(config_of(stores, copy, resume=True))
    assert losses_of(copy) == losses_of(folder)
    assert_equal_weights(copy, folder)


def assert_equal_weights(run: Path, other: Path) -> None:
    loaded = [load_head(folder, torch.device("cpu"))[0].state_dict() for folder in (run, other)]
    assert all(torch.equal(loaded[0][name], loaded[1][name]) for name in loaded[1])


def test_a_finished_run_has_nothing_left_to_do(finished: tuple[Path, dict[str, Any]], stores: Path) -> None:
    folder, summary = finished
    before = (folder / runs.METRICS).read_bytes()
    again = train_head.run(config_of(stores, folder, resume=True))
    assert again["loss"] == summary["loss"] and (folder / runs.METRICS).read_bytes() == before


BLOCKED = ("extract", "timm", "decord", "av", "webdataset", "pycocotools")
CODEC = (
    "extract",
    "extract.codecs",
    "extract.codecs.devices",
    "extract.codecs.devices.contract",
    "extract.codecs.devices.float16",
    "extract.codecs.devices.int8",
    "extract.codecs.on_device",
    "extract.codecs.through_numpy",
)  # all of extract that training from a store may load
DRIVER = f"""
import importlib.machinery, os, sys
class Blocker:  # libraries may ask whether a package is there; none may load it
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r} and name not in {CODEC!r}:
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise ImportError("blocked by the test: " + spec.name)
    def exec_module(self, module):
        raise AssertionError
forbidden, kill_at = os.environ["FORBIDDEN_FOLDER"], os.environ.get("KILL_AT")
def watch(event, args):
    if event == "open" and str(args[0]).startswith(forbidden):
        raise OSError("opened " + str(args[0]))
    if event == "os.rename" and kill_at and str(args[1]).endswith(kill_at):
        os.kill(os.getpid(), 9)
sys.addaudithook(watch)
from pipelines.__main__ import main
sys.meta_path.insert(0, Blocker())
code = main(sys.argv[1:])
loaded = sorted(n for n in sys.modules if n.partition(".")[0] in {BLOCKED!r} and n not in {CODEC!r})
assert not loaded, loaded
sys.exit(code)
"""


def in_a_process(
    arguments: list[str], forbidden: Path, kill_at: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "FORBIDDEN_FOLDER": str(forbidden), "KILL_AT": kill_at,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.ci  # two more processes train
def test_killed_and_resumed_from_the_store_alone(
    finished: tuple[Path, dict[str, Any]], data: Path, tmp_path: Path
) -> None:
    """SIGKILL while the second checkpoint is renamed, then --resume: the losses of a run never killed."""
    folder, run = finished[0], tmp_path / "killed"
    config = tmp_path / "config.yaml"
    config.write_text((folder / "config.yaml").read_text())
    words = ["train-head", "--config", str(config), "--run", str(run)]
    killed = in_a_process(words, data, kill_at="step-0000010.ckpt")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(runs.checkpoints(run)) == [5]
    resumed = in_a_process(["train-head", "--resume", "--run", str(run), "--json"], data)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout.splitlines()[-1])["steps"] == STEPS
    assert losses_of(run) == losses_of(folder)
    assert_equal_weights(run, folder)


def test_resume_refuses_another_store(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    other = make_store(tmp_path, seed=1)
    with pytest.raises(IdentityError, match="identity differs in backbone"):
        train_head.run(config_of(tmp_path, finished[0], resume=True, store=(str(other),)))


def test_resume_refuses_another_head(finished: tuple[Path, dict[str, Any]], stores: Path) -> None:
    with pytest.raises(IdentityError, match="head"):
        train_head.run(config_of(stores, finished[0], resume=True, head="bifpn2"))


def test_a_run_is_not_overwritten(
    finished: tuple[Path, dict[str, Any]], stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train-head",
        "--head",
        "linear",
        "--stores",
        str(stores),
        "--run",
        str(finished[0]),
        "--device",
        "cpu",
    ]
    assert main(words) == 2
    assert "already holds a run; pass --resume" in capsys.readouterr().err


def test_divergence_stops_the_run(stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"train-head --head linear --stores {stores} --run {tmp_path / 'run'} --device cpu --batch-size 4"
    words += " --max-steps 6 --lr 1e30 --warmup-steps 0 --checkpoint-every 1"
    assert main(words.split()) == 1
    message = capsys.readouterr().err
    assert re.search(r"the loss of step \d is not finite, at learning rate \d.*e\+2[0-9]|1e\+30", message)
    for path in runs.checkpoints(tmp_path / "run").values():
        weights = torch.load(path, weights_only=True)["state_dict"].values()
        assert all(torch.isfinite(weight).all() for weight in weights)


def test_a_level_the_head_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path, levels=("p4", "p5"))
    assert main(["train-head", "--head", "fpn", "--store", str(store), "--device", "cpu"]) == 2
    message = capsys.readouterr().err
    assert "needs level p2, p3" in message and str(store) in message


def test_no_store_and_several(stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-head", "--head", "linear", "--stores", str(tmp_path), "--dataset", "ade20k"]) == 2
    assert "make extract DATASET=ade20k" in capsys.readouterr().err
    found = [make_store(tmp_path, seed=seed, records=4) for seed in (0, 1)]
    assert main(["train-head", "--head", "linear", "--stores", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert all(str(path) in message for path in found)


def test_bf16_and_tensorboard(stores: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    changes = {"precision": "bf16", "logger": ("tensorboard",), "max_steps": 4, "keep_checkpoints": 2}
    clipped = OptimizerConfig(
        lr=1e-2, clip_norm=0.01
    )  # Lightning would refuse: its own clipping, fused, bf16
    summary = train_head.run(config_of(stores, run, optimizer=clipped, checkpoint_every=1, **changes))
    assert summary["loss"] < 4.9  # it begins at ln 150
    assert list(run.glob("tensorboard/**/events.out.tfevents.*"))
    for written in (run / "hparams.yaml", run / "tensorboard" / "hparams.yaml"):
        assert yaml.safe_load(written.read_text())["optimizer.clip_norm"] == 0.01
    assert list(runs.checkpoints(run)) == [3, 4]


@pytest.mark.ci
def test_weights_and_biases_offline(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its offline file holds settings and losses, and a resumed run keeps its id."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    train_head.run(config_of(stores, run, max_steps=2, log_every=1, checkpoint_every=1, logger=("wandb",)))
    (first,) = run.glob("wandb/offline-run-*/run-*.wandb")
    content = first.read_bytes()
    assert b"optimizer.lr" in content and b"loss_seg" in content
    train_head.run(config_of(stores, run, max_steps=3, log_every=1, resume=True, logger=("wandb",)))
    ids = {path.stem for path in run.glob("wandb/offline-run-*/run-*.wandb")}
    assert ids == {first.stem}


@pytest.mark.ci
def test_the_log_warns_of_io_bound_training(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = JoinedStores.read_encoded

    def slow(self: JoinedStores, *args: Any) -> Any:
        time.sleep(1)
        return read(self, *args)

    monkeypatch.setattr(JoinedStores, "read_encoded", slow)
    run = tmp_path / "run"
    with caplog.at_level(logging.INFO):
        train_head.run(config_of(stores, run, head="linear", head_settings={}, max_steps=4, val_every=0))
    line = r"step 4 of 4, .* left, waits for (the disk|reading) \(\d+ % of the time, read at "
    assert re.search(line, caplog.text)
    shares = [float(row["waited_share"]) for row in read_metrics(run / runs.METRICS) if "loss" in row]
    assert len(shares) == 4 and shares[-1] > 0.3
    assert "first step: step 1 of 4, after " in caplog.text and "continues after" not in caplog.text
    monkeypatch.undo()
    with caplog.at_level(logging.INFO):
        train_head.run(
            config_of(stores, run, head="linear", head_settings={}, max_steps=5, val_every=0, resume=True)
        )
    assert "continues after step 4 of 5" in caplog.text and "first step: step 5 of 5, after" in caplog.text


def test_new_runs_get_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [runs.new_run_folder(None, "ade20k-store", "fpn").name for _ in range(2)]
    assert made == ["ade20k-store-fpn-1", "ade20k-store-fpn-2"]


def test_an_interrupt_says_how_to_continue(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("pipelines.training.callbacks.StepLog.on_train_batch_end", interrupt)
    words = f"train-head --head linear --stores {stores} --run {tmp_path / 'run'} --device cpu --max-steps 3"
    assert main(words.split()) == 130
    signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
    assert f"python -m pipelines train-head --resume --run {tmp_path / 'run'}" in capsys.readouterr().err


def test_resume_keeps_to_its_store(stores: Path, tmp_path: Path) -> None:
    """A second store that would fit as well, extracted since, changes nothing."""
    folder = tmp_path / "features"
    make_store(folder, records=4)
    run = tmp_path / "run"
    words = f"train-head --head linear --stores {folder} --run {run} --device cpu --batch-size 2 --max-steps"
    assert main([*words.split(), "2"]) == 0
    make_store(folder, records=4, seed=1)
    assert main(["train-head", "--resume", "--run", str(run), "--max-steps", "4"]) == 0
    assert list(runs.checkpoints(run)) == [2, 3, 4]  # the last three stay


def test_weights_choose_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for digest, weights in (("ab" * 32, "random:0"), ("cd" * 32, "timm")):
        make_store(tmp_path, records=4, weights=digest)
        remember_weights(tmp_path, digest, weights)
    words = (
        f"train-head --head linear --stores {tmp_path} --run {tmp_path / 'run'} --device cpu --batch-size 2"
    )
    assert main([*words.split(), "--max-steps", "1", "--weights", "timm"]) == 0
    record = runs.read_run(tmp_path / "run")
    assert (record.weights_sha256, record.weights) == ("cd" * 32, "timm")
    assert main([*words.split(), "--weights", "random:7"]) == 2
    assert "no store under" in capsys.readouterr().err
