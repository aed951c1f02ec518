"""Detection as a user runs it on made scenes, with defects in the data: extract, train, evaluate, predict."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from extract.datasets.coco import CATEGORY_IDS, CLASS_NAMES
from pipelines.__main__ import main
from pipelines.cli.arguments import parse
from pipelines.config import EvaluateConfig, ExtractConfig, PredictConfig, TrainConfig
from pipelines.demo.made.thing_files import write_thing_split
from pipelines.errors import USAGE
from pipelines.metrics.coco_ap import NUMBERS
from pipelines.runs.metrics_csv import read_metrics
from pipelines.runs.trained_head import load_head
from pipelines.verbs import evaluate, extract_features, predict, train_head
from stores.reading.reader import open_store
from tests.pipelines.made_detections import read_json

CROP_PX, TRAINING, VALIDATION = 64, 8, 2
SMALL: dict[str, float] = {
    "width": 16,
    "box_width": 64,
    "mask_width": 16,
    "anchor_scale": 4.0,
    "rpn_samples": 32,
    "candidates": 60,
    "proposals": 30,
    "test_candidates": 60,
    "test_proposals": 30,
    "roi_samples": 32,
    "score_threshold": 0.01,
}


@dataclass(frozen=True)
class Extracted:
    data: Path
    stores: Path
    summary: dict[str, Any]
    """Of the extraction of the training split, which has defects."""
    log: str


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Extracted:
    root = tmp_path_factory.mktemp("coco")
    for split, count in (("train2017", TRAINING), ("val2017", VALIDATION)):
        data = write_thing_split(root, split, count, CATEGORY_IDS, CLASS_NAMES)
    spoil(data)
    common: dict[str, Any] = {"dataset": "coco", "data": str(data), "model": "swinv2-nano", "device": "cpu"}
    common |= {"stores": str(root / "features"), "workers": 1}
    with captured_log() as log:
        summary = extract_features.run(
            ExtractConfig(**common, split="train2017", views=2, crop_size=CROP_PX, max_failed=1)
        )
    extract_features.run(ExtractConfig(**common, split="val2017", short_side=CROP_PX))
    return Extracted(data, root / "features", summary, log.getvalue())


def spoil(data: Path) -> None:
    """One defect an image: an unknown category, two points, no area; and an image that is not there."""
    path = data / "annotations" / "instances_train2017.json"
    content = read_json(path)
    with_two = [
        image["id"]
        for image in content["images"]
        if sum(each["image_id"] == image["id"] and not each["iscrowd"] for each in content["annotations"]) > 1
    ]
    defects = (
        {"category_id": 12},
        {"segmentation": [[4.0, 4.0, 9.0, 9.0]]},
        {"bbox": [5.0, 5.0, 0.0, 7.0]},
    )
    for image_id, defect in zip(with_two, defects, strict=False):
        annotation = next(each for each in content["annotations"] if each["image_id"] == image_id)
        annotation.update(defect)
    path.write_text(json.dumps(content))
    (data / "train2017" / content["images"][-1]["file_name"]).unlink()


@contextlib.contextmanager
def captured_log():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("extract")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def config(extracted: Extracted, run: Path, *words: str) -> TrainConfig:
    settings = [f"--head-settings.{name}={value}" for name, value in SMALL.items()]
    common = ["--dataset", "coco", "--stores", str(extracted.stores), "--run", str(run), "--device", "cpu"]
    return parse(TrainConfig, [*common, *settings, *words])


@pytest.fixture(scope="module")
def run(extracted: Extracted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = (
        "--head bifpn1 --max-steps 20 --batch-size 4 --lr 4e-3 --shape constant --log-every 1 --val-every 0"
    )
    train_head.run(config(extracted, folder, *words.split()))
    return folder


def test_defects_are_logged_with_id_reason_and_count(extracted: Extracted) -> None:
    (line,) = [line for line in extracted.log.splitlines() if "cannot be used" in line]
    assert line.startswith("train2017: 3 of 26 annotations (11.54%), in 3 records, ")
    reasons = (
        *("category 12 (int) is not one of the 80", "a polygon with 2 points, expected 3 or more"),
        "a box of zero area, 0.0 x 7.0 px",
    )
    assert all(f"1 x {reason}" in line for reason in reasons), line
    assert re.search(r"such as annotation \d+ of image 0+\d+: ", line)


def test_a_missing_image_is_a_skipped_record(extracted: Extracted) -> None:
    path = Path(extracted.summary["store"])
    with open_store(path) as store:
        written = set(store.keys)
        content = read_json(extracted.data / "annotations" / "instances_train2017.json")
        gone = Path(content["images"][-1]["file_name"]).stem
        assert gone not in written
        assert len(written) == len({Path(i["file_name"]).stem for i in content["images"]}) - 1 - empty(
            content
        )
    skipped = json.dumps(extracted.summary)
    assert gone in skipped and "2" in skipped  # both its views


def empty(content: dict[str, Any]) -> int:
    """Training images without anything to learn from."""
    return sum(
        not any(each["image_id"] == image["id"] for each in content["annotations"])
        for image in content["images"]
    )


@pytest.mark.parametrize("head", ["htc-bifpn5", "fpn,htc-bifpn5"])
@pytest.mark.parametrize("more", [[], ["--seeds", "2"]])
@pytest.mark.ci
def test_a_head_without_its_targets_is_refused_before_a_folder_is_made(
    head: str, more: list[str], extracted: Extracted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--head {head} --stores {extracted.stores} --run {tmp_path / 'run'} --max-steps 1 --device cpu"
    assert main(["train-head", *words.split(), *more]) == USAGE
    message = capsys.readouterr().err
    assert "head htc-bifpn5 needs the targets stuff, which " in message
    assert "use htc-nosem-bifpn5 or one of: bifpn1, " in message
    assert not list(tmp_path.iterdir())


def test_without_its_semantic_branch_a_head_needs_no_stuff(extracted: Extracted, tmp_path: Path) -> None:
    words = "--head htc-bifpn5 --head-settings.semantic false --max-steps 1 --batch-size 2 --val-every 0"
    assert train_head.run(config(extracted, tmp_path / "run", *words.split()))["steps"] == 1


def test_a_former_cascade_is_resumed_as_it_was(extracted: Extracted, tmp_path: Path) -> None:
    """A folder of a version whose cascades had two fully connected layers by default and recorded no more."""
    folder = tmp_path / "run"
    words = ["--head", "cascade-fpn", "--max-steps", "1", "--batch-size", "2", "--val-every", "0"]
    former = ["--head-settings.box_head", "2fc", "--head-settings.border_anchors", "true"]
    train_head.run(config(extracted, folder, *words, *former))
    record = json.loads((folder / "run.json").read_text())
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert record.pop("head_revision") == 2
    for settings in (record["head_settings"], saved["head_settings"]):
        del settings["box_head"], settings["border_anchors"]
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text(yaml.safe_dump(saved))
    assert main(["train-head", "--resume", "--run", str(folder), "--max-steps", "2"]) == 0
    assert json.loads((folder / "run.json").read_text()) == {**record, "head_revision": 1}
    head, step = load_head(folder, torch.device("cpu"))
    assert (step, head.settings.box_head, head.settings.border_anchors) == (2, "2fc", True)


def test_the_loss_falls(run: Path) -> None:
    losses = [float(row["loss"]) for row in read_metrics(run / "metrics.csv") if "loss" in row]
    assert len(losses) == 20
    assert np.mean(losses[-4:]) < 0.6 * losses[0]
    assert {"loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_box", "loss_mask"} <= set(
        read_metrics(run / "metrics.csv")[0]
    )


def test_evaluate_says_what_the_official_tool_says(
    run: Path, extracted: Extracted, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = evaluate.run(EvaluateConfig(run=str(run), device="cpu"))
    last = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("box AP"))
    number = r"\d+\.\d\d"
    assert re.match(rf"box AP {number} mask AP {number} \(single\) ", last), last
    assert summary["detections"] > 0
    annotated = COCO(str(extracted.data / "annotations" / "instances_val2017.json"))
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        with contextlib.redirect_stdout(io.StringIO()):
            official = COCOeval(annotated, annotated.loadRes(str(run / f"results-{kind}.json")), kind)
            official.evaluate()
            official.accumulate()
            official.summarize()
        ours = [-1 if summary[name][each] is None else summary[name][each] for each in NUMBERS]
        assert ours == pytest.approx(official.stats.tolist(), abs=1e-9)


def test_a_split_without_objects_has_no_scores(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_thing_split(tmp_path, "val2017", 1, CATEGORY_IDS, CLASS_NAMES)
    path = data / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps({**read_json(path), "annotations": []}))
    store = extract_features.run(
        ExtractConfig(
            dataset="coco", data=str(data), split="val2017", model="swinv2-nano", device="cpu", workers=1,
            short_side=CROP_PX, stores=str(tmp_path / "features"),
        )
    )["store"]  # fmt: skip
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert main(["evaluate", "--run", str(copy), "--store", store, "--device", "cpu", "--json"]) == 0
    line, *_, text = capsys.readouterr().out.splitlines()[-4:]
    assert line == "box AP - mask AP - (single) AP50 - and -, 1 records: no object is annotated"
    for written in (text, (copy / "evaluate.json").read_text()):
        summary = json.loads(written, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        assert set(summary["scores"].values()) == {None}
        assert summary["class_names"] == list(CLASS_NAMES)
        assert summary["box_ap_by_class"] == [None] * len(CLASS_NAMES)
    assert main(["report", str(copy), "--json"]) == 0
    assert not any("box AP (single)" in name for name in read_report(capsys)["rows"][0])


def read_report(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_many_views_are_merged_live(
    run: Path, extracted: Extracted, capsys: pytest.CaptureFixture[str]
) -> None:
    views: Any = "ms-flip"
    summary = evaluate.run(
        EvaluateConfig(run=str(run), live=True, views=views, data=str(extracted.data), device="cpu")
    )
    assert "(ms+flip)" in capsys.readouterr().out
    assert (summary["records"], summary["views"]) == (VALIDATION, "ms+flip")
    assert (run / "results-segm-ms-flip.json").is_file()
    per_image = [entry["image_id"] for entry in read_json(run / "results-bbox-ms-flip.json")]
    assert max(per_image.count(image) for image in set(per_image)) <= 100


def test_predict_draws_and_writes(run: Path, extracted: Extracted, tmp_path: Path) -> None:
    image = sorted((extracted.data / "val2017").glob("*.jpg"))[0]
    summary = predict.run(PredictConfig(run=str(run), input=str(image), out=str(tmp_path), device="cpu"))
    written = read_json(tmp_path / f"{image.stem}.json")
    assert summary["images"] == [written]
    with Image.open(tmp_path / f"{image.stem}.overlay.png") as picture, Image.open(image) as original:
        assert original.size == (written["width"], written["height"])
        # A legend stands below it where an object is shown.
        assert picture.size[0] == original.size[0] and picture.size[1] >= original.size[1]
    assert written["instances"]
    for each in written["instances"]:
        assert CLASS_NAMES[each["class"]] == each["name"] and 0 < each["score"] <= 1
        x, y, width, height = each["bbox"]
        assert (
            0 <= x <= x + width <= written["width"] + 1e-3
            and 0 <= y <= y + height <= written["height"] + 1e-3
        )


def test_a_share_of_the_store_in_epochs_and_repeats(extracted: Extracted, tmp_path: Path) -> None:
    """`coco-1pct` in small: a fold as a row filter, its records repeated, the steps counted and recorded."""
    words = "--head fpn --recipe coco-1pct --subset coco-50pct-fold1 --epochs 1 --repeat 3 --batch-size 2"
    summary = train_head.run(config(extracted, tmp_path / "run", *words.split(), "--val-every", "0"))
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (recorded["epochs"], recorded["repeat"], recorded["subset"]) == (1.0, 3, "coco-50pct-fold1")
    with open_store(Path(extracted.summary["store"])) as store:
        rows = range(len(store))
        positions = {
            store.keys[r]: int(t["listed"][0])
            for r, t in zip(rows, store.read_targets(rows, ("listed",)), strict=True)
        }
    drawn = set(np.random.RandomState(1).choice(range(TRAINING), size=TRAINING // 2).tolist())
    kept = sum(position in drawn for position in positions.values())
    assert 0 < kept < len(positions)
    assert summary["steps"] == recorded["max_steps"] == -(-3 * kept // 2)
