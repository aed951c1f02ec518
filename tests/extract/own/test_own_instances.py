"""Own data in COCO's format: own categories, ids with gaps, file names with folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.datasets import category_ids, choose, dataset_module, open_dataset
from extract.datasets.own.describing.describe_folder import describe_folder, description_text
from extract.datasets.own.description_file import read_description
from extract.planning.dataset_identity import only_boxes, own_description
from extract.sources.record import DatasetLayoutError
from tests.extract.datasets.made_own import INSTANCES, write_description, write_instances


@pytest.fixture
def described(tmp_path: Path) -> Path:
    write_instances(tmp_path / "data", {"train": 4, "test": 2})
    return write_description(tmp_path / "my.yaml", INSTANCES)


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    whole = json.loads(path.read_text())
    edit(whole)
    path.write_text(json.dumps(whole))


def test_own_categories_and_folders(described: Path) -> None:
    dataset = open_dataset(str(described), split="train")
    assert [record.key for record in dataset.records] == ["day0/s000", "day0/s002", "day1/s001", "day1/s003"]
    assert dataset.name == "cars" and dataset.class_names == ("road", "car") and dataset.is_training
    truth = dataset.read_truth(2)
    assert truth.image_id == 103 and truth.labels.tolist() == [1]
    assert truth.xywh.tolist() == [[9, 20, 16, 16]] and truth.listed == (1, 4)
    assert len(dataset.read_source(2)) == dataset.records[2].source_bytes > 0
    assert only_boxes(dataset) == {} and choose(str(described)).recipe.name == "jitter"


def test_ids_and_names_are_in_the_identity(described: Path) -> None:
    dataset = open_dataset(str(described), split="test")
    identity = {"name": "cars", "class_names": ["road", "car"], **own_description(dataset)}
    assert identity["description"]["classes"] == [[7, "road"], [30, "car"]]
    assert category_ids(identity) == (7, 30)
    again = open_dataset(identity, described.parent / "data", "test")
    assert again.annotation_digest == dataset.annotation_digest


def test_ids_of_other_data_sets() -> None:
    ids = category_ids({"name": "coco", "class_names": ["person"]})
    assert len(ids) == 80 and ids[-1] == 90
    assert category_ids({"name": "ade20k", "class_names": ["wall", "building"]}) == (1, 2)


def test_boxes_without_masks(tmp_path: Path) -> None:
    write_instances(tmp_path / "data", {"train": 2, "test": 1}, masks=False)
    dataset = open_dataset(str(write_description(tmp_path / "my.yaml", INSTANCES)), split="train")
    assert only_boxes(dataset) == {"boxes_only": True}
    assert {spec.name for spec in dataset.target_specs(False, [np.zeros((1, 8))] * 2)} >= {"boxes", "labels"}


def test_images_in_several_folders(described: Path) -> None:
    data = described.parent / "data"
    (data / "more").mkdir()
    (data / "pictures/train/day1").rename(data / "more/day1")
    with_both = INSTANCES.replace("images: pictures/train", "images: [pictures/train, more]")
    dataset = open_dataset(str(write_description(described, with_both)), split="train")
    assert dict(dataset.unusable_records) == {}
    only_one = open_dataset(str(write_description(described, INSTANCES)), split="train")
    assert list(only_one.unusable_records) == ["day1/s001", "day1/s003"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda whole: whole["categories"].append({"id": 31, "name": "bus"}),
            r"has category 31 \(int\) 'bus', the description no such id: `classes` holds the ids and names",
        ),
        (
            lambda whole: whole["categories"][0].update(name="lorry"),
            r"has category 30 \(int\) 'lorry', the description 'car'",
        ),
        (
            lambda whole: whole["images"][0].update(file_name="../s.jpg"),
            "file_name '../s.jpg', expected a path below the folder of images",
        ),
        (
            lambda whole: [image.update(file_name="x" + image["file_name"]) for image in whole["images"]],
            r"lists 4 images, such as xday0/s000\.jpg; looked for them in .*pictures/train, found none; .*"
            r"holds 2 entries: day0/, day1/; own data: .*describe",
        ),
        (
            lambda whole: whole["images"].append({**whole["images"][0], "file_name": "day1/s001.jpg"}),
            "'day1/s001' listed twice",
        ),
    ],
)
def test_bad_files_are_refused(described: Path, edit: Callable[[dict[str, Any]], None], message: str) -> None:
    change(described.parent / "data/train.json", edit)
    with pytest.raises(DatasetLayoutError, match=message):
        open_dataset(str(described), split="train")


def test_a_wrong_folder_names_what_was_looked_for(described: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DatasetLayoutError, match=r"looked for the annotations .*train\.json, found no such .*"
    ):
        open_dataset(str(described), tmp_path, "train")
    write_description(described, INSTANCES.replace("{7: road, 30: car}", "[road, car]"))
    with pytest.raises(DatasetLayoutError, match="classes: a list, expected `category id: name`"):
        dataset_module(str(described))


def test_describe_finds_files_folders_and_ids(tmp_path: Path) -> None:
    data = write_instances(tmp_path / "data", {"train": 4, "test": 2}, masks=False)
    (data / "notes.json").write_text("[]")
    text = description_text(describe_folder(data), data, tmp_path / "my.yaml")
    (tmp_path / "my.yaml").write_text(text)
    assert (
        "# train: 4 images, 4 objects with boxes and no masks: heads are of boxes only; pixels 64x48" in text
    )
    found = read_description(tmp_path / "my.yaml")
    assert found.classes == {7: "road", 30: "car"} and found.training == ("train",)
    assert found.splits["test"] == {"annotations": ("test.json",), "images": ("pictures/test",)}
    assert len(open_dataset(str(tmp_path / "my.yaml"), split="test").records) == 2


def test_real_blood_cells_are_recognised(samples: Path, tmp_path: Path) -> None:
    folder = samples / "own/bccd_small"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    (tmp_path / "cells.yaml").write_text(
        description_text(describe_folder(folder), folder, tmp_path / "cells.yaml")
    )
    found = read_description(tmp_path / "cells.yaml")
    assert found.classes == {1: "RBC", 2: "WBC", 3: "Platelets"} and list(found.splits) == ["train", "val"]
    assert len(open_dataset(str(tmp_path / "cells.yaml")).records) == 60
