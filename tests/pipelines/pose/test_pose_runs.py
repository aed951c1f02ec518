"""Poses from end to end: a store against live features, boxes of a file, prediction, a head that learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from extract.datasets import open_dataset
from extract.datasets.coco_pose import write_sample
from heads import build_head
from pipelines.__main__ import main
from pipelines.cli.arguments import parse
from pipelines.config import EvaluateConfig, ExtractConfig, PredictConfig, TrainConfig
from pipelines.evaluation.store_views import store_views
from pipelines.live.backbone import live_features, load_same_backbone
from pipelines.live.person_boxes import LEAST_SCORE, open_boxes
from pipelines.tasks import task_for
from pipelines.verbs import evaluate, extract_features, predict, train_head
from stores.codecs import codec
from stores.reading.reader import open_store
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file

COMMON = ["--dataset", "coco_pose", "--model", "swinv2-nano", "--weights", "random:0"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of eight made persons a split at 64 px, and a run of three steps."""
    root = tmp_path_factory.mktemp("poses")
    write_sample(root / "data", 8, np.random.default_rng(0))
    extract(root, "--crop-size", "64", "--split", "train2017")
    extract(root, "--short-side", "64", "--split", "val2017")
    (training,) = (root / "features").glob("*train2017*")
    words = ["--head", "pose-deconv2x32", "--store", str(training), "--run", str(root / "run")]
    train_head.run(parse(TrainConfig, [*words, "--max-steps", "3", "--batch-size", "4", "--val-every", "0"]))
    return root


def extract(root: Path, *more: str) -> dict[str, Any]:
    words = [*COMMON, "--data", str(root / "data"), "--stores", str(root / "features"), *more]
    found: dict[str, Any] = extract_features.run(parse(ExtractConfig, words))
    return found


def test_rows_are_live_features_through_the_codec_bit_by_bit(made: Path) -> None:
    """Each training view replayed from its stored parameters, and its targets."""
    (path,) = (made / "features").glob("*train2017*")
    dataset = open_dataset("coco_pose", made / "data", "train2017")
    with open_store(path) as store:
        wanted = store.identity["backbone"]
        backbone = load_same_backbone(wanted, ("p5",), "random:0", torch.device("cpu"))
        int8 = codec(store.plan.codec)
        for row, key in enumerate(store.keys):
            index = [record.key for record in dataset.records].index(key)
            view = dataset.media.view_from_params(store.params[row])
            pixels = dataset.media.render(dataset.read_source(index), dataset.records[index], [view])[0]
            live = live_features(backbone, pixels[None], [view.valid_hw])["p5"][0].numpy()
            through = int8.decode(int8.encode(np.ascontiguousarray(live.transpose(1, 2, 0))[None]))
            assert np.array_equal(store.read_features([row])["p5"][0], through[0].transpose(2, 0, 1))
            targets = dataset.targets(dataset.read_truth(index), view)
            for name, found in store.read_targets([row])[0].items():
                assert np.array_equal(found, targets[name]), name


@pytest.mark.ci
def test_live_views_are_scored_as_those_of_a_store(made: Path) -> None:
    stored = evaluate.run(EvaluateConfig(run=str(made / "run"), device="cpu"))
    live = evaluate.run(
        EvaluateConfig(run=str(made / "run"), live=True, data=str(made / "data"), device="cpu")
    )
    assert stored["records"] == live["records"] == 8 and stored["boxes"] == "annotated boxes"
    poses = json.loads((made / "run/results-keypoints-flip.json").read_text())
    assert all(len(pose["keypoints"]) == 51 for pose in poses)
    assert {path.name for path in (made / "run").glob("*-flip.png")} >= {"poses-flip.png"}


@pytest.mark.ci
def test_boxes_of_a_file_are_named_in_the_headline(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = made / "detector.json"
    boxes.write_text(json.dumps([{"image_id": 1, "bbox": [5, 5, 40, 50], "score": 0.9}]))
    done = extract(made, "--short-side", "64", "--split", "val2017", "--boxes", str(boxes))
    assert done["rows_written"] == 2 * 4  # one box, and three images whose persons it does not show
    found = evaluate.run(EvaluateConfig(run=str(made / "run"), store=done["store"], device="cpu"))
    assert found["boxes"] == "boxes of detector.json" and found["records"] == 4
    assert "(flip, boxes of detector.json)" in capsys.readouterr().out
    live = evaluate.run(
        EvaluateConfig(
            run=str(made / "run"), live=True, boxes=str(boxes), data=str(made / "data"), device="cpu"
        )
    )
    assert live["boxes"] == found["boxes"]
    code = main(["evaluate", "--run", str(made / "run"), "--store", done["store"], "--boxes", str(boxes)])
    assert code == 2 and "a store is of the boxes it was extracted with" in capsys.readouterr().err


@pytest.mark.ci
def test_prediction_in_boxes(made: Path, tmp_path: Path) -> None:
    Image.new("RGB", (90, 70), "white").save(tmp_path / "7.png")
    boxes = tmp_path / "boxes.json"
    boxes.write_text(
        json.dumps(
            [
                {"image_id": 7, "bbox": [5, 5, 40, 50], "score": 0.9},
                {"file_name": "7.png", "bbox": [30, 5, 40, 50], "score": 0.8},
            ]
        )
    )
    common: dict[str, Any] = {"run": str(made / "run"), "input": str(tmp_path / "7.png"), "device": "cpu"}
    done = predict.run(PredictConfig(**common, out=str(tmp_path / "a"), boxes=str(boxes)))
    (image,) = done["images"]
    assert image["keypoint_names"][0] == "nose" and len(image["persons"]) <= 2
    for person in image["persons"]:
        assert np.array(person["keypoints"]).shape == (17, 3)
    assert (tmp_path / "a/7.overlay.png").is_file()
    whole = predict.run(PredictConfig(**common, out=str(tmp_path / "b")))
    assert all(person["bbox"] == [0, 0, 90, 70] for person in whole["images"][0]["persons"])


@pytest.mark.ci
def test_prediction_in_the_boxes_of_a_detection_run(made: Path, tmp_path: Path) -> None:
    """The persons' boxes alone make a detection set; an untrained detector takes many boxes for persons."""
    split = "{{annotations: annotations/person_keypoints_{0}.json, images: {0}}}"
    (tmp_path / "people.yaml").write_text(
        f"name: people\nlayout: coco-json\ndata: {made / 'data'}\nsplits:\n"
        f"  train: {split.format('train2017')}\n  val: {split.format('val2017')}\n"
        "training: [train]\nclasses: {1: person}\n"
    )
    words = ["--dataset", str(tmp_path / "people.yaml"), "--model", "swinv2-nano", "--weights", "random:0"]
    words += ["--stores", str(tmp_path), "--crop-size", "64"]
    store = extract_features.run(parse(ExtractConfig, words))["store"]
    words = ["--head", "fpn", "--store", store, "--run", str(tmp_path / "detector"), "--lr", "1e-9"]
    train_head.run(parse(TrainConfig, [*words, "--max-steps", "1", "--batch-size", "2", "--val-every", "0"]))
    (picture,) = sorted((made / "data/val2017").iterdir())[:1]
    done = predict.run(
        PredictConfig(
            run=str(made / "run"),
            input=str(picture),
            out=str(tmp_path / "out"),
            boxes=str(tmp_path / "detector"),
            device="cpu",
        )
    )
    (image,) = done["images"]
    with Image.open(picture) as shown:
        width, height = shown.size
        boxes = open_boxes(str(tmp_path / "detector"), {"device": "cpu"}).of(picture, np.array(shown))
    assert boxes, "an untrained detector finds boxes everywhere"
    for (x, y, w, h), score in boxes:
        assert 0 <= x < x + w <= width and 0 <= y < y + h <= height and score >= LEAST_SCORE
    assert {tuple(person["bbox"]) for person in image["persons"]} <= {box for box, _ in boxes}


def test_boxes_are_for_poses(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (90, 70), "white").save(tmp_path / "7.png")
    words = ["predict", "--run", str(made / "run"), "--input", str(tmp_path / "7.png"), "--device", "cpu"]
    assert main([*words, "--boxes", str(tmp_path / "none.json")]) == 2
    assert "no such file of boxes" in capsys.readouterr().err
    assert main([*words, "--boxes", str(made / "run")]) == 2
    assert "a run of pose, expected one of detection" in capsys.readouterr().err


@pytest.mark.slow
def test_real_persons_are_learnt_by_heart(samples: Path, tmp_path: Path) -> None:
    """Twenty of them: AP of 0.9 or more on the features it was trained on."""
    if not (samples / "coco/annotations/person_keypoints_val2017.json").is_file():
        pytest.skip("no real samples: no coco/annotations/person_keypoints_val2017.json there")
    keys = [record.key for record in open_dataset("coco_pose", samples / "coco", "val2017").records][:20]
    (tmp_path / "keys.txt").write_text("\n".join(keys) + "\n")
    words = ["--dataset", "coco_pose", "--model", "swinv2-nano", "--data", str(samples / "coco")]
    words += ["--split", "val2017", "--views", "single", "--subset", str(tmp_path / "keys.txt")]
    done = extract_features.run(parse(ExtractConfig, [*words, "--stores", str(tmp_path)]))
    with open_store(done["store"]) as store:
        rows = [row for row, key in enumerate(store.keys) if key in keys]
        features = {name: torch.from_numpy(x) for name, x in store.read_features(rows).items()}
        targets = [
            {"keypoints": torch.from_numpy(t["keypoints"])} for t in store.read_targets(rows, ("keypoints",))
        ]
        head = build_head("pose-deconv4x256", "pose", store.pyramid, 17, seed=0, width=64)
        optimiser = torch.optim.AdamW(head.parameters(), lr=5e-3, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=500)
        for _ in range(500):
            loss = head.losses(features, targets, [(256, 256)] * len(rows))["loss_heatmap"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        task: Any = task_for(store.identity["dataset"])
        views = store_views(store, head.levels, task.test_targets, torch.device("cpu"))
        found = task.measure(head.eval(), views, views_name="single", device=torch.device("cpu"), bf16=False)
    assert found.records == 20 and found.numbers["AP"] >= 0.9
