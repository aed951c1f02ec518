"""Depth from data to predictions: store against live, scores by hand, files, parts of the records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from extract.backbones.loading import backbone_card, load_backbone
from extract.codecs.on_device import encode
from extract.datasets import dataset_module, open_dataset
from extract.sources.byte_sources import decode_image
from extract.views.view import View
from heads import build_head
from pipelines.__main__ import main
from pipelines.config import ExtractConfig
from pipelines.feed.transfer import dequantise
from pipelines.live.backbone import live_features
from pipelines.live.run_model import load_run
from pipelines.runs.run_folder import read_run
from pipelines.tasks import task_for, task_info
from pipelines.verbs import extract_features
from stores.reading.reader import open_store
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file

DESCRIPTION = str(Path(__file__).parents[2] / "contracts" / "descriptions" / "own-depth.yaml")
CROP_PX, STEPS = 64, 4


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample of own-depth.yaml, its stores, and a run whose validation is the test store."""
    root = tmp_path_factory.mktemp("depth")
    dataset_module(DESCRIPTION).write_sample(root / "data", 6, np.random.default_rng(0))
    for own in (
        {"split": "train", "views": 2, "crop_size": CROP_PX},
        {"split": "test"},
        {"split": "test", "views": "slide-flip"},
    ):
        config = ExtractConfig(
            dataset=DESCRIPTION, data=str(root / "data"), model="swinv2-nano", weights="random:0",
            stores=str(root / "features"), device="cpu", workers=1, **own,
        )  # fmt: skip
        extract_features.run(config)
    words = ["--head", "depth-deconv2x32", "--stores", str(root / "features"), "--split", "train"]
    words += ["--max-steps", str(STEPS), "--batch-size", "3", "--device", "cpu", "--run", str(root / "run")]
    words += ["--val-store", str(store_of(root, "test-swinv2")), "--head-settings.width", "8"]
    assert main(["train-head", *words]) == 0
    return root


def store_of(root: Path, name: str, views: int | None = 1) -> Path:
    for path in sorted((root / "features").glob(f"*{name}*")):
        with open_store(path) as store:
            if views is None or store.view_count == views or "train" in name:
                return path
    raise AssertionError(f"no store of {name}")


def evaluate(root: Path, store: Path) -> None:
    words = ["--run", str(root / "run"), "--store", str(store), "--device", "cpu"]
    assert main(["evaluate", *words]) == 0


def test_store_and_live_are_equal_through_the_codec(root: Path) -> None:
    """Of every row: features, the depth map and the loss of a head, bit for bit."""
    dataset = open_dataset(DESCRIPTION, root / "data", "train")
    index_of = {record.key: index for index, record in enumerate(dataset.records)}
    with open_store(store_of(root, "train")) as store:
        backbone = load_backbone(
            backbone_card("swinv2-nano", {}, store.levels, window_rule="cover"), "random:0"
        )
        head = build_head("depth-deconv2x32", "depth", store.pyramid, 0, seed=0, max_depth_m=20.0)
        for row in range(len(store)):
            index, view = index_of[store.keys[row]], View.from_params(store.params[row])
            pixels = view.apply_image(decode_image(dataset.read_source(index)))[None]
            live = live_features(backbone, pixels, [view.valid_hw])["p5"]
            stored = store.read_features([row])["p5"]
            coded = dequantise(store.codec, encode(store.codec, live.permute(0, 2, 3, 1)))
            assert np.array_equal(stored, coded.numpy())
            depth = view.apply_map(dataset.read_truth(index), 0)
            (target,) = store.read_targets([row], ("depth",))
            assert target["depth"].dtype == np.uint16 and np.array_equal(target["depth"], depth)
            losses = [
                head.losses({"p5": x}, [{"depth": torch.from_numpy(y)}], [view.valid_hw])["loss_depth"].item()
                for x, y in ((torch.from_numpy(stored), target["depth"]), (coded, depth))
            ]
            assert losses[0] == losses[1]


def test_a_run_takes_unit_and_range_from_its_data(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = read_run(root / "run")
    facts = record.identity["dataset"]["task_facts"]
    assert facts == {"units_per_m": 256.0, "max_depth_m": 20.0, "min_depth_m": 0.001, "crop": "none"}
    assert record.num_classes == 0 and record.full_settings["max_depth_m"] == 20.0
    assert not {"max_depth_m", "units_per_m"} & record.own_settings.keys(), "the data decides them"
    assert task_for(record.identity["dataset"]).info is task_info("depth")
    assert not task_info("depth").score("RMSE").higher_is_better
    best = json.loads((root / "run" / "checkpoints" / "best.json").read_text())
    assert best["score"] == "RMSE"


def test_scores_are_those_of_predictions_by_hand(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """evaluate's RMSE of the single view is that of what load_run predicts, pixel by pixel."""
    assert (
        main(
            [
                "evaluate",
                "--run",
                str(root / "run"),
                "--store",
                str(store_of(root, "test")),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    summary = json.loads((root / "run" / "evaluate.json").read_text())
    assert f"RMSE {summary['rmse']:.3f} m" in printed and "6 records" in printed
    dataset, model = open_dataset(DESCRIPTION, root / "data", "test"), load_run(root / "run")
    errors = {}
    for index, record in enumerate(dataset.records):
        predicted = model([decode_image(dataset.read_source(index))])[0].numpy()
        truth = dataset.read_truth(index) / 256
        errors[record.key] = float(np.sqrt(np.mean((predicted - truth)[truth > 0] ** 2)))
    assert summary["rmse"] == pytest.approx(np.mean(list(errors.values())), rel=2e-2)
    lines = (root / "run" / "records.csv").read_text().splitlines()
    scores = [float(line.rpartition(",")[2]) for line in lines[1:]]
    assert lines[0] == "key,rmse_m" and scores == sorted(scores, reverse=True) and len(scores) == 6
    for name in ("worst", "best"):
        with Image.open(root / "run" / f"{name}-records.png") as picture:
            assert min(picture.size) > 300


def test_windows_and_their_mirror_images(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_windows = [
        path
        for path in (root / "features").glob("*test*")
        if json.loads((path / "plan.json").read_text())["identity"]["views"]["recipe"] == "slide-flip"
    ]
    assert (
        main(["evaluate", "--run", str(root / "run"), "--store", str(with_windows[0]), "--device", "cpu"])
        == 0
    )
    assert "(slide+flip), 6 records" in capsys.readouterr().out
    assert (root / "run" / "evaluate-slide-flip.json").is_file()


def test_files_of_a_prediction(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = sorted((root / "data" / "images" / "hidden").glob("*.jpg"))[0]
    out = root / "predicted"
    words = ["--run", str(root / "run"), "--input", str(source), "--out", str(out), "--device", "cpu"]
    assert main(["predict", *words]) == 0
    with Image.open(source) as image, Image.open(out / f"{source.stem}.depth.png") as stored:
        size, units = image.size, np.asarray(stored)
        assert stored.size == size and units.dtype == np.uint16
    metres = np.load(out / f"{source.stem}.depth.npy")
    assert metres.dtype == np.float32 and metres.shape == size[::-1]
    np.testing.assert_array_equal(units, np.rint(metres * 256).clip(1))
    assert (out / f"{source.stem}.overlay.png").is_file()
    facts = json.loads((out / f"{source.stem}.json").read_text())
    assert (
        facts["png_units_per_m"] == 256 and facts["least_m"] <= facts["median_m"] <= facts["largest_m"] <= 20
    )


def test_parts_of_the_records_one_after_another(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--head",
        "depth-linear",
        "--stores",
        str(root / "features"),
        "--split",
        "train",
        "--device",
        "cpu",
    ]
    words += ["--max-steps", "1", "--batch-size", "2", "--subset", "50%,100%", "--run", str(root / "parts")]
    words += ["--val-store", str(store_of(root, "test"))]
    assert main(["train-head", *words]) == 0
    assert {path.name for path in (root / "parts").iterdir()} == {"50pct", "100pct"}
    table, picture = root / "parts.csv", root / "parts.png"
    assert main(["report", str(root / "parts"), "--out", str(table)]) == 0
    printed = capsys.readouterr().out
    assert "depth-linear, 50 %" in printed and "RMSE (single, while training)" in printed
    with Image.open(picture) as drawn:
        assert drawn.width > 1500  # two panels: over parameters, and over the share
