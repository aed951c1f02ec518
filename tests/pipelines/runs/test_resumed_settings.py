"""Runs resumed with other settings, from other places, and runs that are refused before they begin."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from pipelines.__main__ import main
from pipelines.errors import DONE, IDENTITY, USAGE
from pipelines.reporting.run_summary import read_figures
from pipelines.runs import run_folder as runs
from pipelines.runs.checkpoint_files import BestScore, read_best, write_best
from pipelines.runs.settings_history import read_history
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file
from tests.pipelines.made_clip_stores import make_clip_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `features` and `runs/run` of two steps."""
    folder = tmp_path_factory.mktemp("lab")
    make_clip_store(folder / "features", records=8, views=1)
    make_clip_store(folder / "features", split="val", records=4, views=1)
    words = f"train-head --head linear --stores {folder / 'features'} --run {folder / 'runs' / 'run'}"
    words += " --batch-size 4 --threads 1 --device cpu --checkpoint-every 1 --max-steps 2"
    words += " --optimizer.lr 0.002"
    assert main(words.split()) == DONE
    return folder


@pytest.fixture
def lab(made: Path, tmp_path: Path) -> Path:
    """A copy elsewhere: the paths in it are those of the original, which is out of reach."""
    copy = Path(shutil.copytree(made, tmp_path / "moved"))
    run = copy / "runs" / "run"
    for path in (run / "config.yaml", run / "run.json"):
        path.write_text(path.read_text().replace(str(made), "/nowhere"))
    return copy


def resume(run: Path, *flags: str) -> int:
    return main(["train-head", "--resume", "--run", str(run), *flags])


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("flags", "field", "values"),
    [
        (("--batch-size", "2"), "batch_size", ("4", "2")),
        (("--seed", "3"), "seed", ("0", "3")),
        (("--subset", "50%"), "subset", ("None", "'50%'")),
        (("--optimizer.weight_decay", "0.1"), "optimizer.weight_decay", ("0.05", "0.1")),
        (("--optimizer.betas", "0.8,0.9"), "optimizer.betas", ("[0.9, 0.999]", "[0.8, 0.9]")),
        (("--shuffle-window", "8"), "shuffle_window", ("None", "8")),
        (("--head", "temporal1"), "head", ("'linear'", "'temporal1'")),
    ],
)
def test_what_must_not_change_is_refused_with_both_values(
    flags: tuple[str, str], field: str, values: tuple[str, str], lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = lab / "runs" / "run"
    before = files_of(run)
    assert resume(run, "--max-steps", "4", *flags) == IDENTITY
    assert f"{field}: expected {values[0]}, found {values[1]}" in capsys.readouterr().err
    assert files_of(run) == before


def test_what_may_change_is_kept_with_the_step_it_holds_from(lab: Path) -> None:
    run = lab / "runs" / "run"
    assert resume(run, "--max-steps", "3", "--optimizer.lr", "1e-5") == DONE
    assert resume(run, "--max-steps", "4") == DONE
    first, second = read_history(run)
    assert (first.step, dict(first.changed)) == (2, {"max_steps": (2, 3), "optimizer.lr": (0.002, 1e-5)})
    assert (second.step, dict(second.changed)) == (3, {"max_steps": (3, 4)})
    text = (run / "config.yaml").read_text()
    assert "# from step 2: optimizer.lr 1e-05 (before: 0.002)" in text
    settings = yaml.safe_load(text)
    assert (settings["optimizer"]["lr"], settings["max_steps"], settings["batch_size"]) == (1e-5, 4, 4)
    assert read_figures(run).history == (first, second)


def test_a_run_with_a_history_is_no_repeat_of_one_without(lab: Path) -> None:
    run, other = lab / "runs" / "run", lab / "runs" / "other"
    shutil.copytree(run, other)
    assert read_figures(run).learned_alike() == read_figures(other).learned_alike()
    assert resume(other, "--optimizer.lr", "0.1") == DONE
    assert resume(other, "--optimizer.lr", "0.002") == DONE
    assert read_figures(run).config["optimizer"] == read_figures(other).config["optimizer"]
    assert read_figures(run).learned_alike() != read_figures(other).learned_alike()


def test_resumed_as_it_was_a_run_has_no_history(lab: Path) -> None:
    run = lab / "runs" / "run"
    assert resume(run) == DONE
    assert not (run / "history.json").exists() and not (run / "run.lock").exists()


def test_steps_trained_again_have_the_new_settings_alone(lab: Path) -> None:
    run = lab / "runs" / "run"
    assert resume(run, "--max-steps", "3") == DONE
    write_best(run, BestScore(step=3, score="top-1", value=1.0), b"of steps with the former rate")
    for step in (2, 3):
        path = runs.checkpoint_path(run, step)
        path.write_bytes(path.read_bytes()[:1000])
    assert resume(run, "--optimizer.lr", "0.1") == DONE
    assert [change.step for change in read_history(run)] == [1, 1]
    best = read_best(run)
    assert best is not None and best.value < 1


def test_a_moved_run_finds_its_stores_by_their_identity(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lab)
    run = lab / "runs" / "run"
    assert resume(run, "--max-steps", "3") == DONE
    assert main(["evaluate", "--run", "runs/run", "--json"]) == DONE
    assert str(lab / "features") in json.loads(capsys.readouterr().out.splitlines()[-1])["source"]


def test_a_renamed_store_is_found_under_stores(lab: Path, tmp_path: Path) -> None:
    store = next((lab / "features").glob("*train*"))
    (tmp_path / "elsewhere").mkdir()
    store.rename(tmp_path / "elsewhere" / "renamed")
    run = lab / "runs" / "run"
    assert resume(run, "--max-steps", "3") == USAGE
    assert resume(run, "--max-steps", "3", "--stores", str(tmp_path / "elsewhere")) == DONE
    assert runs.read_run(run).stores[0].path == str(tmp_path / "elsewhere" / "renamed")


def test_another_store_of_the_same_name_is_not_taken(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = next((lab / "features").glob("*train*"))
    name = store.name
    store.rename(lab / "kept")
    other = make_clip_store(lab / "features", records=12, views=1)
    other.rename(lab / "features" / name)
    run = lab / "runs" / "run"
    assert resume(run, "--max-steps", "3") == DONE
    assert runs.read_run(run).stores[0].path == str(lab / "kept")
    (lab / "kept").rename(lab.parent.parent / f"{os.getpid()}-gone")
    assert resume(run, "--max-steps", "4") in (USAGE, IDENTITY)


@pytest.mark.parametrize("flags", [("--head", "linear,temporal1"), ("--head", "linear", "--seeds", "2")])
def test_several_runs_that_are_refused_leave_no_folder(flags: tuple[str, ...], lab: Path) -> None:
    other = make_clip_store(lab / "others", split="val", records=4, views=1, weights="cd" * 32)
    words = f"train-head --stores {lab / 'features'} --run {lab / 'new' / 'runs'} --batch-size 4 --device cpu"
    words += f" --max-steps 1 --val-store {other}"
    assert main([*words.split(), *flags]) == IDENTITY
    assert not (lab / "new" / "runs").exists()


@pytest.mark.parametrize("flag", ["--logger", "--val-store"])
def test_a_refused_run_leaves_no_folder(
    flag: str, lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The logger's package is missing here; the test store is of another backbone."""
    other = make_clip_store(lab / "others", split="val", records=4, views=1, weights="cd" * 32)
    value = str(other) if flag == "--val-store" else "tensorboard"

    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr("lightning.pytorch.loggers.TensorBoardLogger.__init__", missing)
    words = f"train-head --head linear --stores {lab / 'features'} --run {lab / 'new' / 'run'} --batch-size 4"
    assert main([*words.split(), "--max-steps", "1", "--device", "cpu", flag, value]) in (USAGE, IDENTITY)
    assert not (lab / "new").exists()
    (lab / "mine").mkdir()
    words = words.replace(str(lab / "new" / "run"), str(lab / "mine"))
    assert main([*words.split(), "--max-steps", "1", "--device", "cpu", flag, value]) in (USAGE, IDENTITY)
    assert list((lab / "mine").iterdir()) == []
    assert main([*words.split(), "--max-steps", "1", "--device", "cpu"]) == DONE
