"""Figures of a run against a plain loop over the store, single and flipped, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.__main__ import main
from pipelines.config import EvaluateConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from pipelines.runs import run_folder as runs
from pipelines.runs.metrics_csv import read_metrics
from pipelines.runs.trained_head import load_head
from pipelines.verbs import evaluate, train_head
from stores.reading.reader import open_store
from tests.pipelines.made_stores import CLASSES, make_store


def train(stores: Path, run: Path, head: str = "linear", **changes: Any) -> Path:
    settings = {} if head == "linear" else {"width": 16, "norm": "gn"}
    train_head.run(
        TrainConfig(
            head=head,
            head_settings=settings,
            stores=str(stores),
            run=str(run),
            max_steps=12,
            batch_size=4,
            optimizer=OptimizerConfig(lr=1e-2),
            schedule=ScheduleConfig(warmup_steps=0),
            device="cpu",
            threads=1,
            val_every=0,
            **changes,
        )
    )
    return run


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    make_store(folder)
    make_store(folder, split="validation", records=4, views=1)
    return folder


@pytest.fixture(scope="module")
def run(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(stores, tmp_path_factory.mktemp("runs") / "linear")


def probabilities_by_a_plain_loop(run: Path, store_path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each record, the mean class probabilities (K, H0, W0) of its views, and its labels."""
    head, _ = load_head(run, torch.device("cpu"))
    parts: dict[str, list[np.ndarray]] = {}
    labels = {}
    with open_store(store_path) as store:
        flip = store.plan.view_params.index("flip")
        for row in range(len(store)):
            features = {level: torch.from_numpy(x) for level, x in store.read_features([row]).items()}
            labels[store.keys[row]] = store.read_targets([row])[0]["original_labels"]
            valid, original = (tuple(map(int, hw[row])) for hw in (store.valid_hw, store.original_hw))
            found = head.predict(features, [valid], [original])[0].numpy()
            parts.setdefault(store.keys[row], []).append(
                found[:, :, ::-1] if store.params[row, flip] else found
            )
    return {key: (np.mean(found, axis=0), labels[key]) for key, found in parts.items()}


def iou_by_a_plain_loop(of_records: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[float | None]:
    hits, unions = np.zeros(CLASSES, int), np.zeros(CLASSES, int)
    for probabilities, labels in of_records.values():
        guess = probabilities.argmax(0)
        for label in range(CLASSES):
            hits[label] += ((guess == label) & (labels == label)).sum()
            unions[label] += ((guess == label) | (labels == label)).sum()
    return [hit / union if union else None for hit, union in zip(hits, unions, strict=True)]


def test_scores_equal_those_of_a_plain_loop(
    run: Path, stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = evaluate.run(EvaluateConfig(run=str(run), device="cpu"))
    store = next(stores.glob("ade20k-validation-*"))
    expected = iou_by_a_plain_loop(probabilities_by_a_plain_loop(run, store))
    assert summary["iou_by_class"] == pytest.approx(expected, abs=1e-9)
    present = [value for value in expected if value is not None]
    assert summary["miou"] == pytest.approx(np.mean(present)) and summary["miou"] > 0.2
    assert (summary["records"], summary["views"], summary["step"]) == (4, "single", 12)
    last, pictures, following = capsys.readouterr().out.splitlines()[-3:]
    assert pictures.startswith("pictures: ")
    assert following == f"next: python -m pipelines predict --run {run} --input FOLDER"
    assert re.fullmatch(r"mIoU \d+\.\d\d \(single\) pixel accuracy \d+\.\d\d, 4 records", last)
    assert last.startswith(f"mIoU {100 * summary['miou']:.2f} ")


def test_figures_are_written_into_the_run(run: Path) -> None:
    summary = evaluate.run(EvaluateConfig(run=str(run), device="cpu"))
    assert json.loads((run / "evaluate.json").read_text()) == summary
    with (run / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["wall", "building", "sky", "floor", "tree"]
    assert summary["class_names"] == [row["name"] for row in rows]
    assert len(summary["iou_by_class"]) == 5
    assert [row["iou"] for row in rows] == ["" if v is None else repr(v) for v in summary["iou_by_class"]]


def test_training_measures_as_evaluate_does(run: Path) -> None:
    measured = [float(row["mIoU"]) for row in read_metrics(run / runs.METRICS) if "mIoU" in row]
    assert measured == [evaluate.run(EvaluateConfig(run=str(run), device="cpu"))["miou"]]


def test_flipped_views_are_averaged_at_original_size(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path, split="validation", records=4, views=2)
    summary = evaluate.run(EvaluateConfig(run=str(run), store=str(store), device="cpu"))
    expected = iou_by_a_plain_loop(probabilities_by_a_plain_loop(run, store))
    assert summary["iou_by_class"] == pytest.approx(expected, abs=1e-4)  # sums of two in another order
    assert "(ms+flip)" in capsys.readouterr().out.splitlines()[-3]
    assert (run / "evaluate-ms-flip.json").is_file() and (run / "classes-ms-flip.csv").is_file()


def test_a_record_with_a_skipped_view_is_measured_on_the_rest(run: Path, tmp_path: Path) -> None:
    hole = frozenset({("validation-0", 1), ("validation-1", 0), ("validation-1", 1)})
    store = make_store(tmp_path, split="validation", records=4, views=2, skipped=hole)
    assert evaluate.run(EvaluateConfig(run=str(run), store=str(store), device="cpu"))["records"] == 3


def test_same_codec_and_single_views_come_first(run: Path, stores: Path, tmp_path: Path) -> None:
    for codec_name, views in (("float16", 1), ("float16", 2), ("int8", 1)):
        make_store(tmp_path, split="validation", records=4, codec_name=codec_name, views=views)
    found = evaluate.run(EvaluateConfig(run=str(run), stores=str(tmp_path), device="cpu"))
    assert "float16" in found["source"] and found["views"] == "single"
    flipped = evaluate.run(EvaluateConfig(run=str(run), stores=str(tmp_path), views="ms-flip", device="cpu"))
    assert flipped["views"] == "ms+flip"


def exit_of(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    return main(words.split()), capsys.readouterr().err


def test_no_test_store_says_what_to_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = exit_of(f"evaluate --run {run} --stores {tmp_path}", capsys)
    assert code == 2
    assert "make extract DATASET=ade20k MODEL=made SPLIT=validation LEVELS=p2,p3,p4,p5" in message


def test_several_test_stores_are_listed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [make_store(tmp_path, split="validation", records=4, views=1, seed=seed) for seed in (0, 1)]
    code, message = exit_of(f"evaluate --run {run} --stores {tmp_path}", capsys)
    assert code == 2 and all(str(path) in message for path in paths)


def test_a_store_of_other_weights_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path, split="validation", records=4, views=1, weights="cd" * 32)
    code, message = exit_of(f"evaluate --run {run} --store {store}", capsys)
    assert code == 3
    assert "backbone.weights_sha256" in message and "ab" * 32 in message and "cd" * 32 in message


def test_a_store_without_a_level_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path, split="validation", records=4, views=1, levels=("p4", "p5"))
    code, message = exit_of(f"evaluate --run {run} --store {store}", capsys)
    assert code == 2 and "lacks p2, p3, which the head needs" in message and str(store) in message


def test_a_training_store_is_no_test_store(
    run: Path, stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = next(stores.glob("ade20k-training-*"))
    code, message = exit_of(f"evaluate --run {run} --store {store}", capsys)
    assert code == 2 and "is not a test store" in message


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = exit_of(f"evaluate --run {tmp_path}", capsys)
    assert code == 2 and "not the folder of a run" in message
