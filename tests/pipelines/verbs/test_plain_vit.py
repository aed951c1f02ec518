"""A plain ViT with patches of 14 px through every verb: padded views, one level, a rescaling head."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.__main__ import main
from pipelines.catalog.choose_backbone import tagged_model
from pipelines.catalog.usual_heads import usual_heads
from pipelines.config import ForecastConfig, PlanConfig
from pipelines.forecast.caching_advice import training_configs
from pipelines.forecast.planned_extraction import prepare
from pipelines.live.backbone import run_test_recipe
from pipelines.runs.costs import read_costs
from pipelines.runs.run_folder import read_run
from pipelines.verbs.plan_store import geometry, print_costs, print_geometry
from stores import open_store
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file
from tests.pipelines.extracted import write_coloured_data

MODEL = "timm:vit_small_patch14_dinov2"
ARGS = ["--model-args.embed_dim", "48", "--model-args.depth", "4", "--model-args.num_heads", "3"]
ARGS += ["--model-args.img_size", "70"]


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a training and a test store, and a run of simplefpn."""
    root = tmp_path_factory.mktemp("plain")
    data = write_coloured_data(root, training=4, validation=2)
    where = ["--dataset", "ade20k", "--model", MODEL, "--data", data, "--stores", root / "features", *ARGS]
    where += ["--weights", "random:0", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    run("extract", *where, "--crop-size", 70, "--levels", "b2,b4n,cls4n,avg4n")
    run("extract", *where, "--split", "validation", "--short-side", 70, "--levels", "b4n")
    run(
        *("train-head", "--head", "simplefpn", "--stores", root / "features", "--run", root / "run"),
        *("--max-steps", 2, "--batch-size", 2, "--head-settings.width", 16, "--head-settings.norm", "gn"),
        *("--schedule.warmup_steps", 1),
    )
    return root


def test_the_usual_heads_are_those_of_plain_vits(folder: Path) -> None:
    store = next((folder / "features").glob("ade20k-training*"))
    assert usual_heads("segmentation", open_store(store).levels) == ("dino-linear", "simplefpn")


def test_views_are_padded_to_patches(folder: Path) -> None:
    training, test = (open_store(path) for path in sorted((folder / "features").glob("ade20k*")))
    assert training.levels == ("b2", "b4n", "cls4n", "avg4n")
    assert set(training.bins) == {"70x70"}
    features = training.read_features([0])
    assert features["b4n"].shape == (1, 48, 5, 5) and features["cls4n"].shape == (1, 48, 1, 1)
    assert set(test.bins) == {"70x70", "70x98"} and set(map(tuple, test.valid_hw)) == {(70, 70), (70, 98)}
    backbone = training.identity["backbone"]
    assert backbone["mean"] == [0.5] * 3 and backbone["std"] == [0.25] * 3
    views = training.identity["views"]
    assert views["multiple_px"] == 14 and "multiples of 14 px" in views["replay"]["padding"]


def test_the_vector_is_the_mean_of_the_stored_map(folder: Path) -> None:
    training = open_store(sorted((folder / "features").glob("ade20k-training*"))[0])
    whole = [row for row in range(len(training)) if (training.valid_hw[row] == 70).all()]
    features = training.read_features(whole)
    mean = features["b4n"].mean((2, 3), keepdims=True)
    assert whole and np.abs(mean - features["avg4n"]).max() < 0.02 * np.abs(mean).max()


@pytest.mark.parametrize("how", [[], ["--live", "--data"]], ids=["store", "live"])
def test_the_run_is_measured(folder: Path, how: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    data = [*how, folder / "ADEChallengeData2016"] if how else []
    run("evaluate", "--run", folder / "run", "--device", "cpu", "--json", *data)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 <= found["scores"]["mIoU"] <= 100


def test_the_linear_head_is_measured_on_sliding_windows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder / "ADEChallengeData2016"
    where = ["--dataset", "ade20k", "--model", MODEL, "--data", data, "--stores", folder / "slide", *ARGS]
    where += ["--weights", "random:0", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    run("extract", *where, "--split", "validation", "--views", "slide", "--short-side", 70)
    store = open_store(next((folder / "slide").glob("ade20k*")))
    assert sorted(zip(store.keys, store.views.tolist(), strict=True)) == [
        ("validation_0", 0), ("validation_1", 0), ("validation_1", 1)
    ]  # fmt: skip
    run(
        *("train-head", "--head", "dino-linear", "--stores", folder / "features", "--run", folder / "linear"),
        *("--max-steps", 2, "--batch-size", 2, "--levels", "b4n", "--recipe", "dino-linear"),
    )
    scores = []
    for how in (["--store", store.path], ["--live", "--views", "slide", "--data", data]):
        run("evaluate", "--run", folder / "linear", "--device", "cpu", "--json", *how)
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["views"] == "slide" and found["records"] == 2
        scores.append(found["pixel_accuracy"])
    assert abs(scores[0] - scores[1]) < 0.02  # int8


def test_a_report_shows_what_the_row_and_the_head_cost(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 70 px: 25 patches; b4n of int8 is 25 x 48 bytes; and plan counts the same."""
    costs = read_costs(folder / "run")
    assert costs is not None
    assert list(costs.input_px or ()) == [70, 70] and costs.tokens == 25 and costs.row_bytes == 25 * 48
    run("report", "--run", folder / "run", "--out", folder / "report.csv")
    text = capsys.readouterr().out
    assert "input px  tokens  backbone" in text and "70x70     25" in text and "1.2 kB" in text
    table = (folder / "report.csv").read_text()
    assert f",{costs.backbone_multiply_adds}," in table and f",{costs.neck_multiply_adds}," in table
    small = {"embed_dim": 48, "depth": 4, "num_heads": 3, "img_size": 70}
    data = str(folder / "ADEChallengeData2016")
    config = ForecastConfig(
        dataset="ade20k", model=MODEL, data=data, model_args=small, crop_size=70, head=("simplefpn",)
    )
    extraction = prepare(config)
    trainings = [
        replace(t, head_settings={"width": 16, "norm": "gn"}) for t in training_configs(config, extraction)
    ]
    found = print_costs(extraction, trainings, of_heads=True)
    assert found["backbone"]["multiply_adds"] == costs.backbone_multiply_adds
    assert found["heads"]["simplefpn"]["multiply_adds"] == costs.multiply_adds
    assert found["heads"]["simplefpn"]["parameters"] == costs.parameters
    assert "25 tokens" in capsys.readouterr().out


def test_predictions_read_images_padded_alike(folder: Path) -> None:
    record = read_run(folder / "run")
    assert record.levels == ("b4n",)
    recipe = run_test_recipe(record)
    assert recipe.identity()["multiple_px"] == 14
    image = next((folder / "ADEChallengeData2016" / "images" / "validation").iterdir())
    run("predict", "--run", folder / "run", "--input", image, "--out", folder / "predicted")
    assert any((folder / "predicted").iterdir())


def test_a_crop_of_no_patches_is_refused_and_a_default_one_grows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["plan", "--dataset", "ade20k", "--model", MODEL, *ARGS, "--weights", "random:0"]
    where += ["--data", str(folder / "ADEChallengeData2016"), "--stores", str(folder / "none")]
    assert main([*where, "--crop-size", "64"]) == 2
    assert "crop_size 64: expected multiples of 14 px" in capsys.readouterr().err
    assert main([*where, "--crop-size", "96"]) == 2
    assert "such as 84 or 98" in capsys.readouterr().err
    small = {"embed_dim": 48, "depth": 4, "num_heads": 3, "img_size": 70}
    config = PlanConfig(dataset="ade20k", model=MODEL, data=where[-3], stores=where[-1], model_args=small)
    extraction = prepare(config)
    print_geometry(extraction, geometry(extraction))
    out = capsys.readouterr().out
    assert "518x518 (4)" in out and "% of the patches show nothing of an image" in out


def test_a_head_of_a_pyramid_says_what_it_lacks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train-head", "--head", "fpn", "--stores", str(folder / "features"), "--run", str(folder / "no")]
    assert main(words) == 2
    assert "head fpn needs level p2, p3, p4, p5; available: b2, b4n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mean", "0.5,0.5"], "mean 0.5,0.5: expected three numbers from 0 to 1"),
        (["--std", "0,1,1"], "std 0,1,1: expected three numbers from 0.001 to 1"),
        (["--pos-resample", "torch"], "pos-resample"),
        (["--pretrained-tag", "mae"], "no tag 'mae' of vit_small_patch14_dinov2"),
        (["--levels", "p5n"], "has no level p5n; it has b1..b4, cls1..cls4"),
    ],
)
def test_bad_flags(folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["plan", "--dataset", "ade20k", "--model", MODEL, *ARGS, "--stores", str(folder / "none")]
    assert main([*where, "--data", str(folder / "ADEChallengeData2016"), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_weights_file_needs_a_tag_where_tags_differ(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MAE's and AugReg's weights of one model are normalised differently, and no file says how."""
    where = ["plan", "--dataset", "ade20k", "--model", "timm:vit_base_patch16_224", "--weights", "mae.pth"]
    where += ["--data", str(folder / "ADEChallengeData2016"), "--stores", str(folder / "none")]
    assert main(where) == 2
    text = capsys.readouterr().err
    assert "mae: mean 0.485,0.456,0.406" in text and "augreg_in21k: mean 0.5,0.5,0.5" in text
    config = PlanConfig(dataset="ade20k", model="timm:vit_base_patch16_224", weights="mae.pth")
    half = (0.5, 0.5, 0.5)
    assert tagged_model(replace(config, pretrained_tag="mae")) == "timm:vit_base_patch16_224.mae"
    assert tagged_model(replace(config, mean=half, std=half)) == config.model
    assert tagged_model(replace(config, weights="timm")) == config.model
