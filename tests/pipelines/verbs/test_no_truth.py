"""Splits whose truth is not published: rows without it, and official results files instead of scores."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from extract.datasets import dataset_module, open_dataset
from stores import open_store
from tests.pipelines.verbs.test_own_data import result
from tests.pipelines.verbs.test_stuff import NARROW

EXTRACT = "extract --model swinv2-nano --weights random:0 --stores f --device cpu"
TRAIN = "train-head --stores f --device cpu --batch-size 2 --max-steps 1 --val-every 0 --run runs/a"


def test_label_maps_of_a_split_without_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values are those of the data set's own files, from a store and live alike."""
    dataset_module("cityscapes").write_sample(tmp_path / "data" / "cityscapes", 2, np.random.default_rng(0))
    monkeypatch.chdir(tmp_path)
    extract = f"{EXTRACT} --dataset cityscapes"
    assert result(capsys, f"{extract} --crop-size 32x64")[0] == 0
    assert result(capsys, f"{TRAIN} --head linear")[0] == 0
    code, hidden, _ = result(capsys, f"{extract} --split test --short-side 32")
    assert code == 0
    with open_store(hidden["store"]) as store:
        assert len(store) == 2 and not store.targets and store.identity["dataset"]["truth"] is False
    code, summary, _ = result(capsys, "evaluate --run runs/a")
    assert code == 2 and "SPLIT=val" in summary["error"]  # the store without truth is none to measure on
    code, summary, _ = result(capsys, f"evaluate --run runs/a --store {hidden['store']}")
    assert code == 2 and "whose truth is not published: pass --no-truth" in summary["error"]
    code, summary, text = result(capsys, "evaluate --run runs/a --no-truth")
    assert code == 0 and text.startswith("2 records predicted, no scores: runs/a/results-test")
    maps = {path.name: np.asarray(Image.open(path)) for path in Path("runs/a/results-test").iterdir()}
    known = set(dataset_module("cityscapes").description.classes)  # type: ignore[attr-defined]
    records = open_dataset("cityscapes", split="test").records
    assert {f"{record.key}.png": record.original_hw for record in records} == {
        k: m.shape for k, m in maps.items()
    }
    assert all(set(np.unique(each)) <= known for each in maps.values())
    code, summary, _ = result(capsys, "evaluate --run runs/a --no-truth --live --split test")
    assert code == 0 and summary["records"] == 2
    for name, each in maps.items():
        assert (np.asarray(Image.open(f"runs/a/results-test/{name}")) == each).mean() > 0.95
    code, summary, _ = result(capsys, "evaluate --run runs/a --live --split test")
    assert code == 2 and "its truth is not published: pass --no-truth" in summary["error"]


@pytest.mark.ci
def test_results_of_test_dev(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pycocotools loads the files against the list of images that COCO publishes."""
    dataset_module("coco").write_sample(tmp_path / "coco", 2, np.random.default_rng(0))
    monkeypatch.chdir(tmp_path)
    extract = f"{EXTRACT} --dataset coco --data coco"
    assert result(capsys, f"{extract} --crop-size 64")[0] == 0
    narrow = NARROW.replace(" --head-settings.neck_depth 1", "")
    assert result(capsys, f"{TRAIN} --head fpn {narrow} --head-settings.test_proposals 20")[0] == 0
    code, hidden, _ = result(capsys, f"{extract} --split test-dev2017 --short-side 64")
    assert code == 0
    with open_store(hidden["store"]) as store:
        assert store.targets == ("image_id",)
    code, summary, _ = result(capsys, "evaluate --run runs/a --no-truth")
    assert code == 0 and summary["records"] == 2
    assert [Path(path).name for path in summary["files"]] == [
        "results-bbox-test-dev2017.json",
        "results-segm-test-dev2017.json",
    ]
    listed = COCO("coco/annotations/image_info_test-dev2017.json")
    for path in summary["files"]:
        entries = json.loads(Path(path).read_text())
        assert {entry["image_id"] for entry in entries} <= set(listed.getImgIds())
        assert {entry["category_id"] for entry in entries} <= set(listed.getCatIds())
        if entries:
            listed.dataset["annotations"] = []
            assert len(listed.loadRes(path).anns) == len(entries)
    assert result(capsys, f"{extract} --split val2017 --short-side 64")[0] == 0
    code, summary, _ = result(capsys, "evaluate --run runs/a --no-truth --split val2017")
    assert code == 0 and summary["records"] == 2, "a split with truth: nothing of it is read"
