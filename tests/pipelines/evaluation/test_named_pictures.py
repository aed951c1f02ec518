"""Best and worst records of classifications of images and videos, drawn on what a backbone saw of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.datasets import dataset_module, open_dataset, view_recipe
from pipelines.__main__ import main
from pipelines.accuracy.class_figures import ClassFigures
from pipelines.accuracy.named_pictures import margin
from pipelines.accuracy.named_records import Named
from pipelines.evaluation.record_images import view_source
from pipelines.tasks.video import VideoFigures


def named(key: str, label: int, best: tuple[int, ...], probabilities: tuple[float, ...]) -> Named:
    return Named(key=key, label=label, best=best, probabilities=probabilities)


def test_the_worst_are_the_surest_mistakes(tmp_path: Path) -> None:
    sure, unsure = named("sure", 0, (1, 2), (0.9, 0.1)), named("unsure", 0, (1, 0), (0.5, 0.4))
    right, best = named("right", 1, (1, 0), (0.6, 0.4)), named("best", 1, (1, 0), (0.98, 0.02))
    assert [margin(each) for each in (sure, unsure, right, best)] == pytest.approx([-0.9, -0.1, 0.2, 0.96])
    asked: list[str] = []

    def view_of(key: str) -> np.ndarray:
        asked.append(key)
        return np.full((40, 60, 3), 90, np.uint8)

    records = (right, sure, best, unsure)
    for figures in (
        ClassFigures(named=records, num_classes=3, views="single"),
        VideoFigures(named=records, num_classes=3, views="single"),
    ):
        figures.draw_views(
            tmp_path, "-4x3", ("cat", "dog $x", "a name of more than twenty-eight letters"), view_of
        )
        assert asked == ["sure", "unsure", "right", "best", "best", "right", "unsure", "sure"]
        asked.clear()
    for name in ("worst", "best"):
        with Image.open(tmp_path / f"{name}-records-4x3.png") as picture:
            assert picture.width > picture.height > 150


@pytest.mark.parametrize(("name", "split"), [("in1k", "val"), ("k400", "val")])
def test_views_of_photographs_and_clips(name: str, split: str, tmp_path: Path) -> None:
    dataset_module(name).write_sample(tmp_path, 2, np.random.default_rng(0))
    opened = open_dataset(name, tmp_path, split)
    recipe = view_recipe(name, dataset_module(name).TEST_VIEWS[0])
    view_of = view_source({"name": name}, str(tmp_path), split, recipe)
    key = opened.records[0].key
    picture = view_of(key)
    side_px = 224 if name == "in1k" else 448  # of a clip two frames by two
    assert picture.shape == (side_px, side_px, 3) and picture.std() > 5
    grey = view_source({"name": name}, str(tmp_path / "absent"), split, recipe)(key)
    assert (grey == 128).all()


@pytest.mark.ci
def test_evaluate_keeps_them(tmp_path: Path) -> None:
    """Without --data: from the folder that the store's log names."""
    dataset_module("in1k").write_sample(tmp_path / "data", 4, np.random.default_rng(0))
    common = [
        "--dataset",
        "in1k",
        "--data",
        str(tmp_path / "data"),
        "--model",
        "swinv2-nano",
        "--device",
        "cpu",
    ]
    common += ["--stores", str(tmp_path / "features"), "--workers", "1", "--views", "single"]
    for split in ("train", "val"):
        assert main(["extract", *common, "--split", split]) == 0
    (store,) = (tmp_path / "features").glob("in1k-train-*")
    run = tmp_path / "run"
    words = [
        "--head",
        "linear",
        "--store",
        str(store),
        "--run",
        str(run),
        "--max-steps",
        "2",
        "--val-every",
        "0",
    ]
    assert main(["train-head", *words, "--batch-size", "2", "--device", "cpu"]) == 0
    assert main(["evaluate", "--run", str(run), "--device", "cpu"]) == 0
    for name in ("worst", "best"):
        with Image.open(run / f"{name}-records.png") as picture:
            assert (np.asarray(picture.convert("RGB")) == 128).all(-1).mean() < 0.01
