"""COCO through the extractor: stores hold the targets of their views, and the annotations to evaluate on."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from extract.backbones.loading import FrozenBackbone
from extract.datasets import Dataset, open_dataset
from extract.datasets.coco import CATEGORIES, CATEGORY_IDS
from extract.sources.byte_sources import NOT_IN_SUBSET
from extract.views.view import View
from pipelines.feed.joined_stores import JoinedStores
from stores import open_store
from stores.format.row_table import UNDECODABLE
from stores.reading.reader import Store
from stores.subsets import fold_positions, subset_keys
from tests.extract.datasets.made_coco import write_folder
from tests.extract.extractor.extraction import run, skipped


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), train=12, val=6)


@pytest.fixture(scope="module")
def training(data: Path, tmp_path_factory: pytest.TempPathFactory, backbone: FrozenBackbone) -> Path:
    dataset = open_dataset("coco", data)
    return run(dataset, tmp_path_factory.mktemp("stores"), backbone, views=2)[0]


def assert_rows_hold_their_targets(store: Store, dataset: Dataset) -> None:
    index_of = {record.key: index for index, record in enumerate(dataset.records)}
    for row, key in enumerate(store.keys):
        view = dataset.media.view_from_params(store.params[row])
        expected = dataset.targets(dataset.read_truth(index_of[key]), view)
        (found,) = store.read_targets([row])
        assert found.keys() == set(store.targets)
        for name, array in found.items():
            assert array.dtype == expected[name].dtype and np.array_equal(array, expected[name]), name


def test_training_rows_hold_what_their_views_show(data: Path, training: Path) -> None:
    with open_store(training) as store:
        assert len(store) == 22 and store.bins == ("64x64",) * 22
        assert store.identity["dataset"]["task"] == "detection"
        assert store.identity["views"]["recipe"] == "coco" and store.identity["views"]["crop_px"] == 64
        assert not any(name.startswith("original") for name in store.targets)
        assert_rows_hold_their_targets(store, open_dataset("coco", data))
        assert sum(len(t["boxes"]) for t in store.read_targets(range(22))) > 10
        assert sum(len(t["crowd_boxes"]) for t in store.read_targets(range(22))) > 0


def rebuilt(truths: Iterable[tuple[list[int], Mapping[str, np.ndarray]]]) -> dict[str, Any]:
    """The annotation file of test rows, from their original sizes and targets alone."""
    images, annotations = [], []
    for (height, width), truth in truths:
        image_id = int(truth["image_id"])
        images.append({"id": image_id, "height": height, "width": width})
        ends = np.cumsum(truth["original_rle_lengths"]).tolist()
        for k, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            counts = truth["original_rle"][start:end].tobytes().decode()
            annotations.append(
                {
                    "id": int(truth["original_ids"][k]),
                    "image_id": image_id,
                    "category_id": CATEGORY_IDS[truth["original_labels"][k]],
                    "bbox": truth["original_xywh"][k].tolist(),
                    "area": float(truth["original_area"][k]),
                    "iscrowd": int(truth["original_crowd"][k]),
                    "segmentation": {"size": [height, width], "counts": counts},
                }
            )
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def detections(official: COCO, seed: int) -> list[dict[str, Any]]:
    """Most objects, their boxes shaken, some twice, with drawn scores."""
    rng, found = np.random.default_rng(seed), []
    for entry in official.dataset["annotations"]:
        for _ in range(int(rng.integers(0, 3))):
            counts = official.annToRLE(entry)
            box = (np.array(entry["bbox"]) + rng.normal(0, 3, 4)).clip(1).tolist()
            rle = {"size": counts["size"], "counts": counts["counts"].decode()}
            kept = {key: entry[key] for key in ("image_id", "category_id")}
            found.append({**kept, "bbox": box, "segmentation": rle, "score": float(rng.random())})
    return found


def scores(truth: COCO, found: list[dict[str, Any]], kind: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        kept = [{k: v for k, v in one.items() if k != "segmentation" or kind == "segm"} for one in found]
        evaluation = COCOeval(truth, truth.loadRes(kept), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def assert_evaluates_equally(annotations: dict[str, Any], official: Path, tmp_path: Path) -> None:
    (tmp_path / "rebuilt.json").write_text(json.dumps(annotations))
    with contextlib.redirect_stdout(io.StringIO()):
        file, ours = COCO(str(official)), COCO(str(tmp_path / "rebuilt.json"))
    for kind in ("bbox", "segm"):
        found = scores(ours, detections(file, 1), kind)
        assert found == scores(file, detections(file, 1), kind)
        assert 0.05 < found[0] < 1


def test_a_test_store_evaluates_as_the_annotation_file(
    data: Path, tmp_path: Path, backbone: FrozenBackbone
) -> None:
    dataset = open_dataset("coco", data, "val2017")
    path, _ = run(dataset, tmp_path / "stores", backbone)
    with open_store(path) as store:
        assert len(store) == 6 and len(set(store.bins)) > 1
        assert_rows_hold_their_targets(store, dataset)
        stored = ((store.original_hw[row].tolist(), store.read_targets([row])[0]) for row in range(6))
        official = data / "annotations" / "instances_val2017.json"
        assert_evaluates_equally(rebuilt(stored), official, tmp_path)


@pytest.mark.data
def test_official_samples_evaluate_as_their_annotation_file(samples: Path, tmp_path: Path) -> None:
    dataset = open_dataset("coco", samples / "coco", "val2017")
    view = View(resized_hw=(32, 32), valid_hw=(32, 32), padded_hw=(32, 32))
    truths = [dataset.read_truth(index) for index in range(50)]
    targets = ((list(truth.original_hw), dataset.targets(truth, view)) for truth in truths)
    official = samples / "coco" / "annotations" / "instances_val2017.json"
    assert_evaluates_equally(rebuilt(targets), official, tmp_path)


def test_a_missing_image_is_skipped_with_its_reason(tmp_path: Path, backbone: FrozenBackbone) -> None:
    root = write_folder(tmp_path, train=1, val=5)
    key = open_dataset("coco", root, "val2017").records[1].key
    (root / "val2017" / f"{key}.jpg").unlink()
    path, summary = run(open_dataset("coco", root, "val2017"), tmp_path / "stores", backbone)
    assert skipped(path) == {(key, 0): (UNDECODABLE, f"its image {key}.jpg is missing")}
    assert list(summary.skipped) == [(key, 0, f"its image {key}.jpg is missing")]


def test_an_image_of_another_size_than_annotated_is_skipped(tmp_path: Path, backbone: FrozenBackbone) -> None:
    root = write_folder(tmp_path, train=1, val=5)
    keys = [record.key for record in open_dataset("coco", root, "val2017").records]
    other = (root / "val2017" / f"{keys[1]}.jpg").read_bytes()
    (root / "val2017" / f"{keys[0]}.jpg").write_bytes(other)
    path, _ = run(open_dataset("coco", root, "val2017"), tmp_path / "stores", backbone)
    ((key, _), (_, reason)) = next(iter(skipped(path).items()))
    assert key == keys[0] and "decodes to" in reason


def test_a_fold_is_the_published_one(data: Path) -> None:
    """By the steps of the scripts that wrote the usual files."""
    official = json.loads((data / "annotations" / "instances_train2017.json").read_text())["images"]
    for percent, fold in ((10, 1), (10, 5), (50, 2)):
        np.random.seed(fold)  # noqa: NPY002 - that is what they did
        drawn = set(np.random.choice(range(len(official)), size=max(1, percent * len(official) // 100)))  # noqa: NPY002
        named = {image["file_name"].removesuffix(".jpg") for i, image in enumerate(official) if i in drawn}
        dataset = open_dataset("coco", data)
        expected = named & {record.key for record in dataset.records}
        assert open_dataset("coco", data, subset=f"coco-{percent}pct-fold{fold}").subset == expected
    assert len(fold_positions(118287, 1, 1)) == 1174 and len(fold_positions(118287, 10, 1)) == 11285
    assert fold_positions(118287, 1, 1) != fold_positions(118287, 1, 2)


def test_a_fold_filters_rows_of_the_full_store_and_of_an_extraction(
    data: Path, training: Path, tmp_path: Path, backbone: FrozenBackbone
) -> None:
    name = "coco-50pct-fold2"
    dataset = open_dataset("coco", data, subset=name)
    assert dataset.subset and 0 < len(dataset.subset) < len(dataset.records)
    stores = JoinedStores.open([training], verify="always", threads=1)
    assert subset_keys(dict.fromkeys(stores.index.keys), name, stores.index.listed) == dataset.subset
    stores.close()
    path, _ = run(dataset, tmp_path, backbone, views=1)
    with open_store(path) as store:
        assert set(store.keys) == dataset.subset
    assert {code for code, _ in skipped(path).values()} == {NOT_IN_SUBSET}


def test_a_fold_file_is_a_subset_too(data: Path, tmp_path: Path) -> None:
    whole = json.loads((data / "annotations" / "instances_train2017.json").read_text())
    path = tmp_path / "instances_train2017.1@10.json"
    path.write_text(json.dumps({**whole, "images": whole["images"][:4], "annotations": []}))
    dataset = open_dataset("coco", data, subset=str(path))
    assert len(dataset.subset or ()) == 3  # the third image has no annotations
    path.write_text(json.dumps({"images": [{"file_name": "1.jpg"}]}))
    with pytest.raises(ValueError, match="no keys"):
        open_dataset("coco", data, subset=str(path))
    path.write_text(json.dumps({"categories": []}))
    with pytest.raises(ValueError, match="not a COCO annotation file"):
        open_dataset("coco", data, subset=str(path))


def test_the_usual_file_of_a_fold_must_agree(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train=12, val=1)
    whole = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    usual = root / "annotations" / "semi_supervised" / "instances_train2017.2@50.json"
    usual.parent.mkdir()
    drawn = fold_positions(12, 50, 2)
    usual.write_text(json.dumps({"images": [whole["images"][position] for position in sorted(drawn)]}))
    named = open_dataset("coco", root, subset=str(usual)).subset
    assert open_dataset("coco", root, subset="coco-50pct-fold2").subset == named
    usual.write_text(json.dumps({"images": whole["images"][:1]}))
    with pytest.raises(ValueError, match="names other images"):
        open_dataset("coco", tmp_path, subset="coco-50pct-fold2")


def test_impossible_folds_are_refused() -> None:
    keys = ["a", "b"]
    for subset, message in (("coco-0pct-fold1", "above 0 %"), ("coco-101pct-fold1", "at most 100")):
        with pytest.raises(ValueError, match=message):
            subset_keys(keys, subset, lambda: {"a": (0, 2), "b": (1, 2)})
    with pytest.raises(ValueError, match="which these records lack"):
        subset_keys(keys, "coco-1pct-fold1")
    with pytest.raises(ValueError, match="lists of"):
        subset_keys(keys, "coco-1pct-fold1", lambda: {"a": (0, 2), "b": (1, 3)})
    with pytest.raises(FileNotFoundError, match="coco-1pct-fold1"):
        subset_keys(keys, "coco-1pct", dict)
