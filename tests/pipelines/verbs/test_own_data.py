"""Own data through all verbs, as docs/own-data.md shows them: from a folder to own class names."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.datasets import dataset_module
from extract.datasets.own.description_file import read_description
from extract.datasets.own.ready_made_sets import ready_made_file
from pipelines.__main__ import main
from pipelines.catalog.data_folder import recorded_data
from tests.extract.datasets.made_own import CLASSES, write_instances, write_masks
from tests.extract.own.test_ready_made import write_cityscapes


def result(capsys: pytest.CaptureFixture[str], line: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, summary and what was printed before it."""
    code = main([*line.split(), "--json"])
    *lines, summary = capsys.readouterr().out.splitlines()
    return code, json.loads(summary), "\n".join(lines)


def test_masks_from_description_to_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_masks(tmp_path / "streets", {"train": 8, "val": 4})
    monkeypatch.chdir(tmp_path)
    code, summary, text = result(capsys, "describe streets --out my.yaml")
    assert code == 0 and summary["classes"] == {"0": "sky", "1": "road", "2": "car"}
    assert text.splitlines()[-1].startswith("my.yaml: layout masks, 3 classes, splits train, val; check it")
    code, summary, _ = result(capsys, "describe streets --out my.yaml")
    assert code == 2 and "--out my.yaml exists" in summary["error"]

    extract = "extract --dataset my.yaml --model swinv2-nano --weights random:0 --stores f --device cpu"
    code, first, text = result(capsys, f"{extract} --crop-size 64")
    assert code == 0 and "3 of 3 classes in 8 of 8 label maps" in text
    assert Path(first["store"]).name.startswith("my-train-swinv2-nano-int8-")
    code, summary, _ = result(capsys, "train-head --head linear --stores other --dataset my.yaml")
    assert code == 2 and "make extract DATASET=my.yaml MODEL=<model>" in summary["error"]
    train = "train-head --head linear --stores f --batch-size 4 --device cpu --val-every 0 --run runs/a"
    code, summary, _ = result(capsys, f"{train} --epochs 2")
    assert (code, summary["steps"]) == (0, 4)
    assert json.loads(json.dumps(summary))["run"] == "runs/a"
    assert "recipe: small-segmentation" in Path("runs/a/config.yaml").read_text()
    code, summary, _ = result(capsys, "evaluate --run runs/a")
    assert code == 2 and "make extract DATASET=my.yaml MODEL=swinv2-nano SPLIT=val" in summary["error"]

    code, test, _ = result(capsys, f"{extract} --split val --short-side 64")
    assert code == 0
    code, stored, text = result(capsys, "evaluate --run runs/a")
    assert code == 0 and "drawn without their images" not in text
    assert recorded_data(test["store"]) == str(tmp_path / "streets")
    with open("runs/a/classes.csv") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(CLASSES)
    code, live, _ = result(capsys, "evaluate --run runs/a --live --data streets --short-side 64")
    assert code == 0 and live["miou"] == pytest.approx(stored["miou"], abs=0.01)
    code, summary, _ = result(capsys, "evaluate --run runs/a --live --short-side 64")
    assert code == 2 and "my is own data: pass --data" in summary["error"]

    code, summary, _ = result(capsys, f"verify --store {test['store']} --full --source --data streets")
    assert code == 0 and summary["ok"]
    code, _, text = result(capsys, f"info --store {test['store']}")
    assert code == 0 and "description" in text
    assert result(capsys, f"status --store {test['store']}")[0] == 0
    code, summary, text = result(capsys, "predict --run runs/a --input streets/images/val --out out")
    assert code == 0 and len(summary["images"]) == 4
    assert {share["name"] for share in summary["images"][0]["classes"]} <= set(CLASSES)
    code, _, text = result(capsys, "report runs/a")
    assert code == 0 and text.startswith("my, swinv2-nano")


def test_plan_names_the_recipe_of_small_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_masks(tmp_path / "streets", {"train": 8, "val": 4})
    monkeypatch.chdir(tmp_path)
    assert main(["describe", "streets", "--out", "my.yaml"]) == 0
    plan = "plan --dataset my.yaml --model swinv2-nano --weights random:0 --device cpu --crop-size 64"
    code, _, text = result(capsys, f"{plan} --head linear,m2f-pd1-td3")
    assert code == 0
    assert "recipe    linear: small-segmentation, 100 steps of 8" in text
    assert "recipe    m2f-pd1-td3: small-m2f, 100 steps of 8" in text
    assert "training  linear: 8 images: about 100 steps, " in text
    assert "each fixed view is seen 100 times; with --views 3, 33 times" in text
    assert "MORE THAN" not in text and " days" not in text


def test_plan_of_few_records_of_an_official_set_takes_the_recipe_of_small_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not 160,000 steps over 6 images: 26,667 epochs, and days."""
    dataset_module("ade20k").write_sample(tmp_path / "data", 6, np.random.default_rng(0))
    plan = f"plan --dataset ade20k --data {tmp_path}/data --stores {tmp_path}/f --model swinv2-nano"
    code, summary, text = result(
        capsys, f"{plan} --weights random:0 --device cpu --crop-size 32x64 --head linear --details"
    )
    assert code == 0 and summary["caching"]["heads"][0]["steps"] == 75
    assert (
        "recipe    linear: ade20k-linear is for all of ade20k; forecast with small-segmentation, 75 steps "
        "of 8 (train-head takes it by --recipe small-segmentation)" in text
    )
    assert "training  linear: 6 images: about 75 steps, " in text and " days" not in text
    assert "bins      1: 32x64 (6)" in text


@pytest.mark.ci
def test_videos_from_description_to_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = Path(__file__).parents[2] / "contracts" / "descriptions" / "own-clips.yaml"
    dataset_module(str(clips)).write_sample(tmp_path / "acts", 4, np.random.default_rng(0))
    monkeypatch.chdir(tmp_path)
    code, summary, _ = result(capsys, "describe acts --out my.yaml")
    assert code == 0 and summary["classes"] == {"0": "clap", "1": "wave"}
    extract = "extract --dataset my.yaml --model swinv2-nano --weights random:0 --stores f --device cpu"
    assert result(capsys, f"{extract} --crop-size 64x96")[0] == 0
    train = "train-head --head linear --stores f --device cpu --val-every 0 --run runs/a --epochs 1"
    assert result(capsys, f"{train} --batch-size 2")[0] == 0
    assert "recipe: small-video" in Path("runs/a/config.yaml").read_text()
    code, summary, _ = result(capsys, "evaluate --run runs/a")
    assert code == 2 and 'ARGS="--crop-size 64x96"' in summary["error"]
    assert result(capsys, f"{extract} --split val --crop-size 64x96")[0] == 0
    code, summary, _ = result(capsys, "evaluate --run runs/a")
    assert code == 0 and summary["class_names"] == ["clap", "wave"]
    code, live, _ = result(capsys, "evaluate --run runs/a --live --data acts")
    assert code == 0 and live["scores"] == summary["scores"]
    assert result(capsys, "predict --run runs/a --input acts/val/wave --out out")[0] == 0
    predicted = [path.read_text() for path in Path("out").glob("val*.json")]
    assert len(predicted) == 2 and all('"clap"' in text and '"wave"' in text for text in predicted)


@pytest.mark.ci
def test_cityscapes_in_rectangular_crops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ready-made description by its name: crops twice as wide as high, through all verbs."""
    for split in ("train", "val"):
        write_cityscapes(tmp_path / "data" / "cityscapes", split)
    monkeypatch.chdir(tmp_path)
    extract = "extract --dataset cityscapes --model swinv2-nano --weights random:0 --stores f --device cpu"
    code, first, text = result(capsys, f"{extract} --crop-size 32x96")
    assert code == 0 and "bins      1: 32x96 (2)" in text
    store = Path(first["store"])
    plan = json.loads((store / "plan.json").read_text())
    assert plan["identity"]["views"]["crop_px"] == [32, 96]
    assert plan["identity"]["views"]["scale_px"] == [128, 32]
    train = "--head fpn --head-settings.width 16 --batch-size 2 --device cpu --max-steps 1 --val-every 0"
    assert result(capsys, f"train-head {train} --stores f --run runs/a")[0] == 0
    code, summary, _ = result(capsys, "evaluate --run runs/a")
    line = "make extract DATASET=cityscapes MODEL=swinv2-nano SPLIT=val LEVELS=p2,p3,p4,p5"
    assert code == 2 and f'{line} WEIGHTS=random:0 ARGS="--short-side 32"' in summary["error"]
    assert result(capsys, f"{extract} --split val --short-side 32")[0] == 0
    code, stored, _ = result(capsys, "evaluate --run runs/a")
    assert code == 0 and stored["class_names"][:2] == ["road", "sidewalk"]
    online = "train-head --online --dataset cityscapes --model swinv2-nano --weights random:0"
    assert result(capsys, f"{online} {train} --stores f --crop-size 32x96 --run runs/b")[0] == 0
    code, live, _ = result(capsys, "evaluate --run runs/b --live")
    assert code == 0 and live["miou"] >= 0
    code, _, text = result(capsys, "describe cityscapes --out streets.yaml")
    assert code == 0 and "the description of cityscapes as streets" in text
    assert read_description("streets.yaml").classes == read_description(ready_made_file("cityscapes")).classes


def test_boxes_from_description_to_results_with_own_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_instances(tmp_path / "streets", {"train": 6, "val": 3}, masks=False)
    monkeypatch.chdir(tmp_path)
    code, summary, _ = result(capsys, "describe streets --out cars.yaml")
    assert code == 0 and summary["classes"] == {"7": "road", "30": "car"}
    extract = "extract --dataset cars.yaml --model swinv2-nano --weights random:0 --stores f --device cpu"
    assert result(capsys, f"{extract} --crop-size 64")[0] == 0
    assert result(capsys, f"{extract} --split val --short-side 64")[0] == 0
    train = (
        "train-head --head fpn --stores f --batch-size 2 --device cpu --val-every 0 --run runs/a --epochs 1"
    )
    narrow = "--head-settings.width 16 --head-settings.box_width 16 --head-settings.test_proposals 20"
    code, summary, _ = result(capsys, f"{train} {narrow}")
    assert (code, summary["steps"]) == (0, 3)
    assert "recipe: small-detection" in Path("runs/a/config.yaml").read_text()
    code, summary, text = result(capsys, "evaluate --run runs/a")
    assert code == 0 and text.startswith("box AP ") and summary["mask"] is None
    with open("runs/a/classes.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["objects"]) for row in rows] == [("road", "0"), ("car", "3")]
    found = json.loads(Path("runs/a/results-bbox.json").read_text())
    assert {entry["category_id"] for entry in found} <= {7, 30}
    assert {entry["image_id"] for entry in found} <= {100, 103, 106}
    code, summary, _ = result(capsys, "predict --run runs/a --input streets/pictures/val/day0 --out out")
    assert code == 0 and len(summary["images"]) == 2
    names = {each["name"] for image in summary["images"] for each in image["instances"]}
    assert names <= {"road", "car"}
