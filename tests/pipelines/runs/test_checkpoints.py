"""Checkpoints: damage is named, the one before is used, the best one is kept, none passes through /tmp."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from pipelines.__main__ import main
from pipelines.errors import DONE, INTEGRITY, USAGE, WorkFailed
from pipelines.live.run_model import load_run
from pipelines.runs import run_folder as runs
from pipelines.runs.checkpoint_files import (
    DIGESTS,
    DamagedCheckpoint,
    check_digest,
    named_checkpoint,
    read_best,
    write_checkpoint_bytes,
)
from pipelines.runs.load_checkpoint import checkpoint_to_resume, load_checkpoint, save_checkpoint
from pipelines.runs.metrics_csv import read_metrics
from pipelines.runs.trained_head import load_head
from pipelines.tasks.info.contract import Score, TaskInfo
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file
from tests.pipelines.made_clip_stores import make_clip_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    make_clip_store(folder, records=8, views=1)
    make_clip_store(folder, split="val", records=4, views=1)
    return folder


def train(stores: Path, run: Path, *flags: str) -> int:
    words = f"train-head --head linear --stores {stores} --run {run} --batch-size 4 --threads 1 --device cpu"
    return main([*words.split(), "--checkpoint-every", "1", "--log-every", "1", *flags])


@pytest.fixture(scope="module")
def trained(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert train(stores, run, "--max-steps", "3", "--val-every", "1") == DONE
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(path: Path) -> None:
    """Weights that are no numbers, with a digest that fits them."""
    content = torch.load(path, weights_only=True)
    next(iter(content["state_dict"].values())).view(-1)[0] = float("nan")
    torch.save(content, path)
    content = path.read_bytes()
    write_checkpoint_bytes(path, content)


DAMAGES = (flip_a_bit, cut, with_nan)


def test_every_checkpoint_has_its_digest(run: Path) -> None:
    lines = (run / "checkpoints" / DIGESTS).read_text().splitlines()
    files = sorted(run.glob("checkpoints/*.ckpt"))
    assert len(files) == 4  # the last three and the best
    assert lines == [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
    assert not list(run.glob("checkpoints/*.partial"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_evaluate_names_the_damaged_one_and_the_command_that_takes_the_one_before(
    damage: type, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs.checkpoint_path(run, 3)
    damage(path)
    assert main(["evaluate", "--run", str(run)]) == INTEGRITY
    message = capsys.readouterr().err
    assert f"{path} is damaged" in message
    command = f"python -m pipelines evaluate --run {run} --checkpoint 2"
    assert command in message
    assert main([*command.split()[3:], "--json"]) == DONE
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_resume_takes_the_one_before_and_ends_where_an_unbroken_run_does(
    damage: type,
    run: Path,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = runs.checkpoint_path(run, 3)
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert main(["train-head", "--resume", "--run", str(run)]) == DONE
    assert f"{path} is damaged" in caplog.text and "resuming from step 2" in caplog.text
    weights = [load_head(folder, CPU)[0].state_dict() for folder in (run, trained)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert losses_of(run) == losses_of(trained)


def losses_of(run: Path) -> list[str]:
    return [row["loss"] for row in read_metrics(run / runs.METRICS) if "loss" in row]


def test_where_all_are_damaged_nothing_is_touched(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in runs.checkpoints(run).values():
        cut(path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["train-head", "--resume", "--run", str(run), "--max-steps", "5"]) == INTEGRITY
    message = capsys.readouterr().err
    assert all(str(path) in message for path in runs.checkpoints(run).values())
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert main(["evaluate", "--run", str(run)]) == INTEGRITY
    assert "no earlier checkpoint is intact" in capsys.readouterr().err


def test_report_names_a_damaged_one_after_its_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip_a_bit(runs.checkpoint_path(run, 3))
    assert main(["report", str(run)]) == INTEGRITY
    captured = capsys.readouterr()
    assert "linear" in captured.out and f"{runs.checkpoint_path(run, 3)} is damaged" in captured.err


def test_a_damaged_digest_counts_against_its_checkpoint_alone(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = run / "checkpoints" / DIGESTS
    *others, last = record.read_text().splitlines()
    record.write_text("\n".join([*others, "?" + last[1:]]))
    with pytest.raises(DamagedCheckpoint, match=r"cannot be checked: .* found .*--checkpoint 2"):
        load_head(run, CPU)
    with caplog.at_level(logging.WARNING):
        assert checkpoint_to_resume(run) == runs.checkpoint_path(run, 2)
    write_checkpoint_bytes(runs.checkpoint_path(run, 3), runs.checkpoint_path(run, 3).read_bytes())
    assert load_head(run, CPU)[1] == 3


def test_load_run_stops_at_a_damaged_one(run: Path) -> None:
    flip_a_bit(runs.checkpoint_path(run, 3))
    with pytest.raises(DamagedCheckpoint, match="step 2 is intact; to use it: --checkpoint 2"):
        load_run(run)


def test_weights_of_another_head_are_named(run: Path) -> None:
    path = runs.checkpoint_path(run, 3)
    save_checkpoint(path, {"state_dict": {"head.other": torch.zeros(1)}})
    with pytest.raises(DamagedCheckpoint, match=r"does not fit the head of run\.json"):
        load_head(run, CPU)


def test_without_digests_a_run_still_loads_and_it_is_said_once(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run / "checkpoints" / DIGESTS).unlink()
    with caplog.at_level(logging.WARNING):
        assert [load_head(run, CPU)[1] for _ in range(3)] == [3, 3, 3]
    assert [record.message for record in caplog.records if "no digest" in record.message] == [
        f"{run}: its checkpoints have no digest (an earlier release): damage is not detected"
    ]
    cut(runs.checkpoint_path(run, 3))
    with pytest.raises(DamagedCheckpoint, match="it cannot be read"):
        load_head(run, CPU)
    assert checkpoint_to_resume(run) == runs.checkpoint_path(run, 2)


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "step-0000001.ckpt"
    with pytest.raises(WorkFailed, match=r"weights head\.w are not finite after step 7"):
        save_checkpoint(path, {"state_dict": {"head.w": torch.tensor([1.0, float("inf")])}, "global_step": 7})
    assert not path.exists()


def test_a_full_temporary_folder_does_not_matter(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be written to at all here."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    run = tmp_path / "run"
    assert train(stores, run, "--max-steps", "1") == DONE
    assert load_checkpoint(runs.checkpoint_path(run, 1))["global_step"] == 1


def test_a_failed_write_leaves_the_file_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step-0000001.ckpt"
    write_checkpoint_bytes(path, b"first")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint_bytes(path, b"second")
    assert path.read_bytes() == b"first"
    assert {found.name for found in tmp_path.iterdir()} == {path.name, DIGESTS}
    check_digest(path)


def scores_of(run: Path) -> dict[int, float]:
    return {
        int(row["step"]): float(row["top-1"]) for row in read_metrics(run / runs.METRICS) if "top-1" in row
    }


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_best_one_is_kept_beside_the_last(
    higher_is_better: bool,
    stores: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    info = TaskInfo(scores=(Score(name="top-1", higher_is_better=higher_is_better), Score(name="top-5")))
    monkeypatch.setattr("pipelines.training.checkpoints.task_info", lambda task: info)
    given = iter([0.25, 0.75, 0.5, 0.0])
    monkeypatch.setattr(
        "pipelines.evaluation.store_measure.StoreMeasure.__call__",
        lambda self, module: {"top-1": next(given), "top-5": 1.0},
    )
    run = tmp_path / "run"
    flags = ("--max-steps", "4", "--val-every", "1", "--keep-checkpoints", "1")
    assert train(stores, run, *flags) == DONE
    monkeypatch.undo()
    step = 2 if higher_is_better else 4
    best = read_best(run)
    assert best is not None and (best.step, best.score, best.value) == (step, "top-1", scores_of(run)[step])
    assert [path.name for path in run.glob("checkpoints/*.ckpt") if "best" in path.name] == [
        f"best-{step:07d}.ckpt"
    ]
    assert list(runs.checkpoints(run)) == [4]
    assert load_head(run, CPU, "best")[1] == step
    assert main(["evaluate", "--run", str(run), "--checkpoint", "best", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == step


def test_a_checkpoint_that_is_not_there_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--run", str(run), "--checkpoint", "7"]) == USAGE
    assert f"a step of {run}; available: 1, 2, 3" in capsys.readouterr().err
    for path in run.glob("checkpoints/best*"):
        path.unlink()
    assert main(["evaluate", "--run", str(run), "--checkpoint", "best"]) == USAGE
    assert "no validation score was measured" in capsys.readouterr().err
    assert named_checkpoint(run, "2") == runs.checkpoint_path(run, 2)
