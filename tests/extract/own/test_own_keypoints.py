"""Own data with keypoints: any number of them, named in the description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from extract.datasets import choose, dataset_module, open_dataset
from extract.datasets.own.description import description_of
from extract.datasets.own.description_file import read_description
from extract.planning.dataset_identity import dataset_identity
from extract.sources.record import DatasetLayoutError

CRABS: dict[str, Any] = {
    "name": "crabs",
    "layout": "coco-json",
    "splits": {
        "train": {"annotations": "train.json", "images": "pictures/train"},
        "test": {"annotations": "test.json", "images": "pictures/test"},
    },
    "classes": {4: "crab"},
    "keypoints": ["shell", "left_claw", "right_claw"],
    "flip_pairs": [["left_claw", "right_claw"]],
    "skeleton": [["shell", "left_claw"], ["shell", "right_claw"]],
    "sigmas": [0.05, 0.1, 0.1],
    "upper_body": ["shell"],
    "crop_size": 128,
}


def described(folder: Path, **changes: Any) -> str:
    path = folder / "crabs.yaml"
    path.write_text(yaml.safe_dump({**CRABS, **changes}, sort_keys=False))
    return str(path)


def test_a_description_of_keypoints_is_of_poses(tmp_path: Path) -> None:
    path = described(tmp_path)
    module = dataset_module(path)
    module.write_sample(tmp_path, 3, np.random.default_rng(0))
    dataset = open_dataset(path, split="test")
    assert dataset.task == "pose" and dataset.class_names == ("shell", "left_claw", "right_claw")
    assert len(dataset.records) == 3 and dataset.read_truth(0).keypoints.shape == (3, 3)
    view = choose(path, "test").recipe.view("crabs", dataset.records[0], 1, 0)
    targets = dataset.targets(dataset.read_truth(0), view)
    assert view.valid_hw == (128, 128) and targets["keypoints"].shape == (3, 3)
    identity = dataset_identity(dataset, "")
    assert identity["task_facts"]["flip_pairs"] == [[1, 2]]
    assert identity["task_facts"]["categories"] == [4] and identity["task_facts"]["upper_body"] == [0]
    again = description_of(identity)
    assert again is not None and again.keypoints == read_description(path).keypoints


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flip_pairs": [["left_claw", "claw"]]}, "flip_pairs: 'claw' is none of the keypoints shell"),
        ({"skeleton": ["shell"]}, "skeleton: .*expected a list of pairs"),
        ({"sigmas": [0.1]}, "sigmas: .*expected a number, or 3 of them"),
        ({"sigmas": -1}, "expected 3 numbers above 0"),
        ({"keypoints": ["a", "a"]}, "keypoints: 2 names, expected 1 to 1000, none twice"),
        ({"keypoints": "shell"}, "expected a list of names"),
        ({"layout": "voc-xml", "classes": ["crab"]}, "keypoints: unknown key"),
    ],
)
def test_other_lists_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetLayoutError, match=words):
        read_description(described(tmp_path, **changes))


def test_a_skeleton_without_keypoints_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "crabs.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in CRABS.items() if key != "keypoints"}))
    with pytest.raises(DatasetLayoutError, match="skeleton: is for data with `keypoints:`"):
        read_description(path)
