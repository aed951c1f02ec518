"""What a run refuses before it spoils figures: other classes, other runs' folders, unfit heads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.errors import IDENTITY, INTEGRITY, USAGE
from pipelines.runs.run_folder import read_run
from stores.errors import IdentityError
from tests.pipelines.made_clip_stores import CLASS_NAMES, make_clip_store


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    make_clip_store(tmp_path / "features", records=8, views=1)
    return tmp_path / "features"


def train(stores: Path, run: Path, head: str, *flags: str) -> int:
    words = f"train-head --head {head} --stores {stores} --run {run} --max-steps 2 --batch-size 4 --threads 1"
    return main([*words.split(), *flags])


def test_a_test_split_with_other_classes_is_refused(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert train(stores, run, "linear") == 0
    others = (CLASS_NAMES[0], *reversed(CLASS_NAMES[1:]))
    monkeypatch.setattr("tests.pipelines.made_clip_stores.CLASS_NAMES", others)
    make_clip_store(stores, split="val", records=4, views=1)
    assert main(["evaluate", "--run", str(run)]) == IDENTITY
    assert f"class_names[1]: expected '{CLASS_NAMES[1]}', found '{others[1]}'" in capsys.readouterr().err
    record = read_run(run)
    with pytest.raises(IdentityError, match=r"class_names\[4\]: expected None, found 'more'"):
        record.check_same_classes((*CLASS_NAMES, "more"), "val")
    of_more = {**record.identity["dataset"], "class_names": [*CLASS_NAMES, "x"]}
    longer = {**record.identity, "dataset": of_more}
    with pytest.raises(IdentityError, match=r"class_names\[4\]: expected 'x', found None"):
        dataclasses.replace(record, identity=longer).check_same_classes(CLASS_NAMES, "val")


def test_seeds_leave_a_folder_of_other_runs_alone(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(stores, run, "linear") == 0
    saved = (run / "config.yaml").read_text()
    for flags in (("--seeds", "2"), ("--seeds", "2", "--resume")):
        assert train(stores, run, "temporal1", *flags) == USAGE
        assert f"{run} already holds a run" in capsys.readouterr().err
        assert (run / "config.yaml").read_text() == saved and not (run / "seed0").exists()
    seeds = tmp_path / "seeds"
    assert train(stores, seeds, "linear", "--seeds", "2") == 0
    assert train(stores, seeds, "linear", "--seeds", "2") == USAGE
    assert f"{seeds} already holds runs; pass --resume to continue them" in capsys.readouterr().err


def test_a_head_that_does_not_fit_leaves_no_folders_of_the_others(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = tmp_path / "group"
    assert train(stores, group, "linear,bifpn5") == USAGE
    assert "no head 'bifpn5' for task 'video'" in capsys.readouterr().err
    assert not list(group.glob("*"))
    assert train(stores, group, "linear,temporal1") == 0


def test_a_store_of_videos_with_their_pixels_is_trained_from(tmp_path: Path) -> None:
    make_clip_store(tmp_path / "features", records=8, views=1, pixels=True)
    assert train(tmp_path / "features", tmp_path / "run", "linear") == 0


def test_broken_files_of_a_run_are_named(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(stores, run, "linear") == 0
    make_clip_store(stores, split="val", records=4, views=1)
    checkpoint = sorted((run / "checkpoints").iterdir())[-1]
    checkpoint.write_bytes(b"broken")
    assert main(["evaluate", "--run", str(run)]) == INTEGRITY
    assert f"{checkpoint} is damaged" in capsys.readouterr().err
    (run / "evaluate.json").write_text("{")
    assert main(["report", str(run)]) == USAGE
    assert f"{run}/evaluate.json cannot be read as a result of evaluate" in capsys.readouterr().err
    (run / "config.yaml").write_text("a: [")
    assert main(["report", str(run)]) == USAGE
    assert f"{run}/config.yaml is not the configuration of a run" in capsys.readouterr().err


def test_online_training_on_a_test_split_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "train-head --head linear --online --dataset ade20k --model swinv2-nano --split validation"
    assert main([*words.split(), "--run", str(tmp_path / "run"), "--device", "cpu"]) == USAGE
    assert "--split validation is a test split; --online trains" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
