"""A head is measured at the scale it was trained at: chosen, compared, and named in the command to run."""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
from pathlib import Path
from typing import Any

import pytest

from extract.datasets import view_recipe
from pipelines.__main__ import main
from pipelines.catalog.extract_line import extract_line
from pipelines.errors import DONE, IDENTITY, USAGE
from pipelines.live.backbone import run_test_recipe
from pipelines.runs import run_folder as runs
from pipelines.runs.view_scale import scale_differences
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file
from tests.pipelines import made_stores

GOLDEN_RUN = Path(__file__).parents[2] / "golden" / "run-linear" / "run"
_identity = made_stores._identity


def store_at(root: Path, short_px: int, split: str, **more: Any) -> Path:
    """A store whose views are of a short side; the cells are always the same."""

    def of_scale(*words: Any) -> dict[str, Any]:
        found = _identity(*words)
        return {**found, "views": {**found["views"], "scale_px": [4 * short_px, short_px]}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_stores, "_identity", of_scale)
        return made_stores.make_store(root, split=split, records=4, **more)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head trained at 640 px."""
    folder = tmp_path_factory.mktemp("trained")
    store_at(folder / "features", 640, "training")
    words = f"train-head --head linear --stores {folder / 'features'} --run {folder / 'run'} --device cpu"
    assert main([*words.split(), "--batch-size", "2", "--max-steps", "1", "--threads", "1"]) == DONE
    return folder / "run"


def evaluated(run: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, the store that was measured on, and the messages."""
    capsys.readouterr()
    code = main(["evaluate", "--run", str(run), "--device", "cpu", "--json", *words])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]).get("source", ""), captured.err


def test_a_store_of_another_scale_is_refused_with_both(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_at(tmp_path, 512, "validation", views=1)
    for words in (("--stores", str(tmp_path)), ("--store", str(store))):
        code, _, message = evaluated(run, capsys, *words)
        assert code == IDENTITY
        assert "views.scale_px: expected [2560, 640], found [2048, 512]" in message
        assert 'SPLIT=validation LEVELS=p2,p3,p4,p5 ARGS="--short-side 640"' in message
        assert "--short-side 512" in message
    code, source, _ = evaluated(run, capsys, "--store", str(store), "--short-side", "512")
    assert (code, source) == (DONE, str(store))


def test_of_several_stores_that_of_the_scale_is_taken(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = {px: store_at(tmp_path, px, "validation", views=1) for px in (512, 640, 800)}
    for words, px in (((), 640), (("--short-side", "800"), 800)):
        code, source, _ = evaluated(run, capsys, "--stores", str(tmp_path), *words)
        assert (code, source) == (DONE, str(stores[px]))


def test_without_a_store_the_command_names_the_scale(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, message = evaluated(run, capsys, "--stores", str(tmp_path))
    assert code == USAGE and 'ARGS="--short-side 640"' in message


def test_training_is_not_validated_at_another_scale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store_at(tmp_path / "features", 640, "training")
    other = store_at(tmp_path / "features", 512, "validation", views=1)
    words = f"train-head --head linear --stores {tmp_path / 'features'} --run {tmp_path / 'run'} --device cpu"
    words += " --batch-size 2 --max-steps 1 --threads 1"
    with caplog.at_level(logging.INFO):
        assert main(words.split()) == DONE
    assert (
        f"{other} is not of the training scale: views.scale_px [2048, 512] instead of [2560, 640]"
        in caplog.text
    )
    assert "mIoU" not in (tmp_path / "run" / "metrics.csv").read_text()
    named = words.replace(str(tmp_path / "run"), str(tmp_path / "named"))
    assert main([*named.split(), "--val-store", str(other)]) == IDENTITY


@pytest.mark.parametrize("dataset", ["ade20k", "coco", "k400"])
@pytest.mark.parametrize("crop_px", [None, 128, 640])
def test_the_scale_is_that_of_evaluate_live(dataset: str, crop_px: int | None) -> None:
    """Of each data set and each of its test views: what the live backbone is shown does not differ."""
    trained = view_recipe(dataset, dataset, crop_size=crop_px).identity()
    record = dataclasses.replace(
        runs.read_run(GOLDEN_RUN), identity={"dataset": {"name": dataset}, "views": trained}
    )
    for views in ("single", "4x3" if dataset == "k400" else "ms-flip"):
        live = run_test_recipe(record, views).identity()
        assert list(scale_differences(trained, live)) == []
        other = run_test_recipe(record, views, short_side=96).identity()
        assert len(list(scale_differences(trained, other))) == 1
        assert list(scale_differences(trained, other, short_side=96)) == []


def record_of(**backbone: Any) -> runs.RunRecord:
    golden = runs.read_run(GOLDEN_RUN)
    identity = {**golden.identity, "backbone": {**golden.identity["backbone"], **backbone}}
    return dataclasses.replace(golden, identity=identity)


@pytest.mark.parametrize(
    ("backbone", "flags"),
    [
        ({}, ["--crop-size", "64", "--window-rule", "partition"]),
        ({"window_rule": "cover"}, ["--crop-size", "64"]),
        (
            {"window_rule": "cover", "args": {"window_size": [4, 4, 2, 2]}},
            ["--crop-size", "64", "--model-args.window_size", "[4,4,2,2]"],
        ),
    ],
)
def test_the_command_names_windows_and_model_arguments(backbone: dict[str, Any], flags: list[str]) -> None:
    line = extract_line(record_of(**backbone))
    assert line.startswith("make extract DATASET=k400 MODEL=swinv2-nano SPLIT=val LEVELS=p5n")
    (words,) = [word for word in shlex.split(line) if word.startswith("ARGS=")]
    assert words.removeprefix("ARGS=").split() == flags
