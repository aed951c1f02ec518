"""CKA inside trained heads through the verb: box heads of a Mask R-CNN, both decoders of a Mask2Former."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extract.datasets.coco import CATEGORY_IDS, CLASS_NAMES
from pipelines.__main__ import main
from pipelines.config import ExtractConfig
from pipelines.demo.made.thing_files import write_thing_split
from pipelines.verbs import extract_features
from tests.contracts.small_heads import SMALL
from tests.pipelines.made_stores import make_store

pytestmark = pytest.mark.ci
IMAGES = 8
DETECTOR = ("width", "box_width", "mask_width", "anchor_scale", "rpn_samples", "candidates", "proposals")
TRAINED = ("--max-steps", "2", "--batch-size", "2", "--val-every", "0", "--device", "cpu")


def trained(run: Path, store: Path, head: str, known: tuple[str, ...]) -> Path:
    settings = [f"--head-settings.{name}={SMALL[name]}" for name in known]
    words = ["train-head", "--head", head, "--store", str(store), "--run", str(run), *TRAINED, *settings]
    assert main(words) == 0
    return run


@pytest.fixture(scope="module")
def detection_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    data = write_thing_split(root, "train2017", IMAGES, CATEGORY_IDS, CLASS_NAMES)
    config = ExtractConfig(
        dataset="coco",
        data=str(data),
        model="swinv2-nano",
        device="cpu",
        stores=str(root / "features"),
        workers=1,
        split="train2017",
        views=1,
        crop_size=64,
    )
    return Path(extract_features.run(config)["store"])


@pytest.fixture(scope="module")
def boxes(detection_store: Path) -> Path:
    return trained(detection_store.parents[1] / "boxes", detection_store, "bifpn1", DETECTOR)


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("queries")
    store = make_store(root / "features", records=IMAGES, views=1)
    return trained(root / "run", store, "m2f-pd1-td3", ("width", "queries", "points"))


def matrices(run: Path, out: Path, *words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON file, and its matrices by title."""
    assert main(["analyse", "--kind", "cka", "--run", str(run), "--out", str(out), *words]) == 0
    with Image.open(out / "cka.png") as picture:
        assert min(picture.size) > 200
    found = json.loads((out / "cka.json").read_text())
    for each in found["matrices"]:
        values = np.array(each["cka"], float)
        assert np.diag(values) == pytest.approx(np.ones(len(values)))
        assert values == pytest.approx(values.T) and values.max() <= 1 + 1e-9
    return found, {each["title"]: each for each in found["matrices"]}


def test_box_heads_of_a_detector(boxes: Path, tmp_path: Path) -> None:
    found, by_title = matrices(boxes, tmp_path, "--part", "roi")
    (rois,) = by_title.values()
    assert rois["rows"] == ["RoI", "F1", "F2"] and found["part"] == "roi"
    assert found["images"] == len(found["keys"]) and found["images"] < found["rows"] <= 16 * found["images"]


def test_box_heads_of_a_cascade_stage_by_stage(detection_store: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", detection_store, "cascade-fpn", DETECTOR)
    _, by_title = matrices(run, tmp_path / "out")  # the neck is the first part
    assert all(each["rows"] == ["lateral", "F1"] for each in by_title.values()) and len(by_title) == 4
    _, by_title = matrices(run, tmp_path / "r", "--part", "roi")
    (rois,) = by_title.values()
    names = ["RoI", "F1", "F2", "F3", "F4", "F5"]
    assert rois["rows"] == [f"{name} s{stage}" for stage in (1, 2, 3) for name in names]


def test_neck_of_a_detector(boxes: Path, tmp_path: Path) -> None:
    _, by_title = matrices(boxes, tmp_path, "--part", "neck")
    assert all(each["rows"] == ["input", "F1"] for each in by_title.values())
    assert [title.rpartition(" ")[2] for title in by_title] == ["p2", "p3", "p4", "p5", "p6"]


def test_decoders_of_a_mask2former(queries: Path, tmp_path: Path) -> None:
    _, by_level = matrices(queries, tmp_path / "p", "--part", "pixel")
    assert [title.rpartition(" ")[2] for title in by_level] == ["p3", "p4", "p5"]
    assert all(each["rows"] == ["projection", "F1"] for each in by_level.values())
    found, by_title = matrices(queries, tmp_path / "q", "--part", "queries")
    (layers,) = by_title.values()
    assert layers["rows"] == ["layer 1", "layer 2", "layer 3"] and found["rows"] == IMAGES


def test_a_part_that_the_head_lacks(queries: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyse", "--kind", "cka", "--run", str(queries), "--part", "roi"]) == 2
    assert "--part roi: the run's head has pixel, queries" in capsys.readouterr().err
