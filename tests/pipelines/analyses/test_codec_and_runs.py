"""Codec error beside the score of trained runs, and the folder of images that stores remember."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.__main__ import main
from stores.checks.level_figures import level_figures
from tests.pipelines.extracted import extract_store, write_coloured_data

pytestmark = pytest.mark.ci
CODECS = ("int8", "q5")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of both codecs below stores/<codec>, evaluated runs of linear heads below runs/<codec>."""
    root = tmp_path_factory.mktemp("codecs")
    data = write_coloured_data(root, training=8, validation=4)
    for codec in CODECS:
        stores, run = root / "stores" / codec, str(root / "runs" / codec)
        store = extract_store(data, stores, codec, "training", views=1)
        extract_store(data, stores, codec, "validation", views="single")
        words = ["--head", "linear", "--store", str(store), "--max-steps", "40", "--val-every", "0"]
        assert main(["train-head", *words, "--run", run, "--batch-size", "4", "--device", "cpu"]) == 0
        assert main(["evaluate", "--run", run, "--device", "cpu"]) == 0
    return root


def training_store(root: Path, codec: str) -> Path:
    (store,) = (root / "stores" / codec).glob("*-training-*")
    return store


def test_scores_of_runs_against_the_bytes_that_they_read(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ",".join(str(root / "runs" / codec) for codec in CODECS)
    store = training_store(root, "q5")
    words = ["--kind", "codec", "--store", str(store), "--runs", runs, "--weights", "random:0"]
    assert main(["analyse", *words, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "codec.json").read_text())
    int8, q5 = found["runs"]
    assert (int8["codec"], q5["codec"]) == CODECS
    for codec, point in zip(CODECS, (int8, q5), strict=True):
        scores = json.loads((root / "runs" / codec / "evaluate.json").read_text())["scores"]
        assert point["value"] == pytest.approx(100 * scores["mIoU"]) and point["score"] == "mIoU (single), %"
    # The linear head reads all levels; a row of 64 px holds 16, 8, 4 and 2 cells a side of them.
    values = sum(side**2 * channels for side, channels in ((16, 24), (8, 48), (4, 96), (2, 192)))
    assert values < int8["bytes_a_row"] < 1.5 * values
    rates = level_figures(store)
    for level, of in found["levels"].items():
        assert of["recorded"]["bits_per_value"] == rates[level].bits_per_value < 8
        assert of["recorded"]["median"] == rates[level].median
        assert float(np.median(of["channels"])) == pytest.approx(0.05, rel=0.05)
    assert capsys.readouterr().out.splitlines()[-1].startswith("codec q5: p2 ")
    with Image.open(tmp_path / "codec.png") as picture:
        assert picture.width > 1.8 * picture.height


def test_a_store_without_its_images_shows_what_was_recorded(root: Path, tmp_path: Path) -> None:
    words = ["--kind", "codec", "--store", str(training_store(root, "q5")), "--weights", "random:1"]
    assert main(["analyse", *words, "--out", str(tmp_path)]) == 0
    levels = json.loads((tmp_path / "codec.json").read_text())["levels"]
    assert all(of["channels"] is None for of in levels.values())
    # Receipts are of shards of one row here, of few cells: their deviations are below those of all rows.
    assert 0.04 < levels["p2"]["recorded"]["median"] < levels["p5"]["recorded"]["median"] < 0.25


def grey_share(picture: Path) -> float:
    """Of pixels exactly as grey as an image that is not at hand."""
    with Image.open(picture) as opened:
        return float((np.asarray(opened.convert("RGB")) == 128).all(-1).mean())


def test_best_and_worst_records_are_drawn_on_the_images_that_were_extracted(
    root: Path, tmp_path: Path
) -> None:
    """Without --data: the store's log names the folder."""
    assert grey_share(root / "runs" / "q5" / "worst-records.png") < 0.01
    stores, run = tmp_path / "stores", tmp_path / "run"
    shutil.copytree(root / "stores" / "q5", stores)
    shutil.copytree(root / "runs" / "q5", run)
    for log in stores.glob("*/log"):
        shutil.rmtree(log)
    assert main(["evaluate", "--run", str(run), "--stores", str(stores), "--device", "cpu"]) == 0
    assert grey_share(run / "worst-records.png") > 0.1
