"""`probe` and a linear head on made photographs of two colours: from a description to tables and pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.__main__ import main
from stores.reading.reader import open_store
from tests.extract.datasets.made_own import write_description
from tests.extract.datasets.made_photos import DESCRIPTIONS, write_folders, write_photo


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of 16 training photographs, as tests show them and in two random views, and of 6 test ones."""
    folder = tmp_path_factory.mktemp("probe")
    write_folders(folder / "data", {"train": 16, "test": 6})
    name = str(write_description(folder / "my.yaml", DESCRIPTIONS["imagefolder"]))
    common = ["extract", "--dataset", name, "--model", "swinv2-nano", "--weights", "random:0"]
    common += ["--stores", str(folder / "features"), "--crop-size", "32", "--device", "cpu", "--workers", "1"]
    for words in (["--views", "single"], ["--views", "2"], ["--split", "test"]):
        assert main([*common, *words]) == 0
    return folder


def probe(place: Path, *words: str) -> dict:
    out = place / "-".join(["probe", *(word.strip("-") for word in words)])
    command = ["probe", "--stores", str(place / "features"), "--out", str(out), "--device", "cpu", *words]
    assert main(command) == 0
    return json.loads((out / "probe.json").read_text())


def test_neighbours(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = probe(place, "--k", "1,3,500")
    assert found["top1"] == found["top5"] == found["mean_per_class"] == 1.0 and found["k"] == 3
    assert (
        found["levels"] == ["avg"]
        and found["training_views"] == "1 x centre"
        and found["training_rows"] == 16
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "k",
        "1",
        "top-1",
        "100.00",
        "top-5",
        "100.00",
        "mean",
        "per",
        "class",
        "100.00",
    ]
    assert "top-1 100.00 top-5 100.00 mean per class 100.00 (single), 6 records by 3 nearest" in lines[-1]
    with (place / "probe-k-1,3,500/classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["cat", "red fox"] and rows[0]["top1_percent"] == "100.00"
    assert (place / "probe-k-1,3,500/confusion.png").stat().st_size > 1000


def test_regression_and_shots(place: Path) -> None:
    for engine in ("sklearn", "torch"):
        found = probe(place, "--method", "logreg", "--engine", engine, "--c", "10")
        assert (found["engine"], found["c"], found["top1"]) == (engine, 10, 1.0)
    few = probe(place, "--subset", "2shot", "--k", "1")
    assert few["training_records"] == 4 and few["subset"] == "2shot"
    random_views = next(
        path for path in (place / "features").glob("*-*") if '"recipe":"probe"' in _plan(path)
    )
    assert probe(place, "--store", str(random_views), "--k", "1")["training_rows"] == 32


def _plan(store: Path) -> str:
    return (store / "plan.json").read_text()


def test_stores_hold_the_mean_of_the_normed_map(place: Path) -> None:
    for path in (place / "features").glob("*-*"):
        with open_store(path) as store:
            assert store.levels == ("avg",) and store.codec == "float16"
            assert store.read_features([0])["avg"].shape == (1, 192, 1, 1)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--k", "500"], 2, "--k 500: more neighbours than the 16 training rows"),
        (["--feature", "cls"], 2, "no level for feature cls; available: avg"),
        (["--subset", "nothing"], 2, "neither a share such as 1%, shots such as 5shot"),
        (["--weights", "random:9"], 2, "no store under .* was extracted with these weights"),
        (["--temperature", "0"], 2, "temperature 0: expected a number above 0"),
        (["--method", "svm"], 2, "expected one of knn, logreg"),
    ],
)
def test_bad_input(
    words: list[str], code: int, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert main(["probe", "--stores", str(place / "features"), "--device", "cpu", *words]) == code
    assert re.search(message, capsys.readouterr().err)


def test_a_linear_head_end_to_end(
    place: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Recipe, scores, tables, live evaluation and predictions with own names."""
    run, stores = str(place / "run"), ["--stores", str(place / "features"), "--device", "cpu"]
    store = next(path for path in (place / "features").glob("*-*") if '"recipe":"probe"' in _plan(path))
    words = ["train-head", "--head", "linear", "--store", str(store), "--run", run, "--epochs", "40"]
    assert main([*words, "--batch-size", "8", "--subset", "4shot", *stores]) == 0
    assert "recipe small-classification, the default" in caplog.text
    capsys.readouterr()
    assert main(["evaluate", "--run", run, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(
        "top-1 100.00 top-5 100.00 mean per class 100.00 (single), 6 rec"
    )
    assert main(["evaluate", "--run", run, "--live", "--data", str(place / "data"), "--device", "cpu"]) == 0
    assert "top-1 100.00" in capsys.readouterr().out
    write_photo(place / "new/a.jpg", 101)
    assert main(["predict", "--run", run, "--input", str(place / "new"), "--device", "cpu"]) == 0
    found = json.loads((place / "run/predictions/a.json").read_text())
    assert found["classes"][0]["name"] == "red fox" and len(found["classes"]) == 2
    assert np.isclose(sum(each["probability"] for each in found["classes"]), 1, atol=1e-5)
    assert (place / "run/predictions/a.overlay.png").stat().st_size > 1000
    assert (place / "run/confusion.png").is_file()
    assert main(["report", run]) == 0
    assert "100.00" in capsys.readouterr().out


@pytest.mark.ci
def test_dinov2s_grid_in_one_pass(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """52 heads on one read of the tokens; the best is named, and said to be chosen on the test records."""
    common = ["--dataset", str(place / "my.yaml"), "--stores", str(place / "vit"), "--device", "cpu"]
    model = ["--model", "timm:vit_tiny_patch16_224", "--weights", "random:0", "--crop-size", "32"]
    for words in (["--views", "single"], ["--split", "test"]):
        assert main(["extract", *common, *model, *words]) == 0
    run = place / "grid"
    words = ["--head", "dinov2-grid", "--run", str(run), "--max-steps", "4", "--batch-size", "8"]
    capsys.readouterr()
    assert main(["train-head", *common, *words, "--val-every", "0", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    summary = json.loads(lines[-1])
    assert len(summary["heads"]) == 52 and summary["best"] in summary["heads"]
    scores = {name: each["top-1"] for name, each in summary["heads"].items()}
    assert scores[summary["best"]] == max(scores.values()) == summary["best_score"]["top-1"]
    assert any(line.startswith("best of 52 heads: ") and "chosen on the validation" in line for line in lines)
    config = (run / "linear-cls4-avg-lr0.1/config.yaml").read_text()
    assert "lr: 0.003125" in config and "name: sgd" in config and "recipe: in1k-linear-dinov2" in config


def test_rows_in_memory_are_the_rows_on_the_disk(place: Path) -> None:
    """Batch by batch and bit by bit, over the end of an epoch and from two stores."""
    import torch

    from pipelines.config import TrainConfig
    from pipelines.feed.datamodule import StoreData, Stretch
    from pipelines.feed.joined_stores import JoinedStores
    from pipelines.feed.resident_rows import ResidentFeed
    from pipelines.feed.row_order import EndlessRows
    from pipelines.feed.store_feed import StoreFeed

    store = next(path for path in (place / "features").glob("*-*") if '"recipe":"probe"' in _plan(path))
    config = TrainConfig(head="linear", batch_size=6, subset="6shot", seed=3)
    data = StoreData(JoinedStores.open([store, store], verify="always", threads=1), config)
    feed = data.batches(Stretch(start_step=1, stop_step=6, device=torch.device("cpu")))
    assert isinstance(feed, ResidentFeed)
    rows = EndlessRows(data._joined.index, batch_size=6, seed=3, subset="6shot")
    read = StoreFeed(
        data._joined, rows.batches(1, 6), batch_size=6, levels=("avg",), task=data.task,
        device=torch.device("cpu"),
    )  # fmt: skip
    found, expected = list(feed), list(read)
    assert len(found) == len(expected) == 5 and feed.reading.batches == 5
    for one, other in zip(found, expected, strict=True):
        assert one.keys == other.keys and one.valid_hw == other.valid_hw
        assert torch.equal(one.features["avg"], other.features["avg"])
        assert all(
            torch.equal(a["label"], b["label"]) for a, b in zip(one.targets, other.targets, strict=True)
        )
    data.close()
