"""Data of persons: what is listed, boxes of a file, keypoint rules, images decoded once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.backbones.loading import FrozenBackbone, backbone_card, load_backbone
from extract.datasets import open_dataset
from extract.datasets.coco_pose import write_sample
from extract.datasets.persons.box_file import read_box_file
from extract.datasets.persons.coco_rule import COCO_KEYPOINTS
from extract.datasets.persons.person_data import PersonData
from extract.decoding.decoder_pool import DecoderPool
from extract.sources.record import DatasetLayoutError
from stores.keypoints import KeypointRule, rule_from_json
from stores.reading.reader import open_store
from tests.extract.extractor.extraction import run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("persons")
    write_sample(folder, 9, np.random.default_rng(0))
    return folder


@pytest.fixture(scope="module")
def nano() -> FrozenBackbone:
    return load_backbone(backbone_card("swinv2-nano", {}, ("p5",)), "random:0")


def changed(made: Path, folder: Path, change: Any) -> Path:
    """A copy whose annotations of val2017 are changed."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "val2017").symlink_to(made / "val2017")
    whole = json.loads((made / "annotations/person_keypoints_val2017.json").read_text())
    change(whole)
    (folder / "annotations/person_keypoints_val2017.json").write_text(json.dumps(whole))
    return folder


def test_crowds_and_persons_without_keypoints_are_truth_but_no_records(made: Path, tmp_path: Path) -> None:
    def change(whole: Any) -> None:
        first, second, third, *_ = whole["annotations"]
        first["iscrowd"] = 1
        second["keypoints"][2::3] = [0] * 17
        third["bbox"] = [-50, 0, 20, 20]

    dataset = open_dataset("coco_pose", changed(made, tmp_path / "c", change), "val2017")
    assert len(dataset.records) == 6
    truth = dataset.read_truth(0)
    assert len(truth.persons) == 2 and dataset.records[0].key.endswith("_4")
    assert dataset.records[0].source == dataset.records[0].key.rpartition("_")[0]


def test_unusable_annotations_are_left_out_and_counted(made: Path, tmp_path: Path) -> None:
    def change(whole: Any) -> None:
        whole["annotations"][0]["keypoints"] = [1, 2, 3]
        whole["annotations"][1]["bbox"] = [0, 0, "a", 1]
        whole["annotations"][2]["category_id"] = 7
        whole["annotations"].append({**whole["annotations"][3], "id": 99, "image_id": 12345})

    dataset = open_dataset("coco_pose", changed(made, tmp_path / "c", change), "val2017")
    found = getattr(dataset, "unusable_annotations", None)
    assert found is not None and found.count == 4 and "keypoints 3 numbers, expected 51" in found.line()
    assert len(dataset.records) == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda whole: whole["categories"][0].update(name="cat"), "category 1 .*'cat', expected 1 'person'"),
        (lambda whole: whole["categories"][0].update(keypoints=["nose"]), "expected 17: nose, left_eye"),
        (lambda whole: whole["images"][1].update(id=1), "1 is the id of several images"),
        (lambda whole: whole.update(annotations=[]), "no person with a visible keypoint in 5 images"),
    ],
)
def test_other_files_are_refused(made: Path, tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(DatasetLayoutError, match=words):
        open_dataset("coco_pose", changed(made, tmp_path / "c", change), "val2017")


def test_boxes_of_a_file(made: Path, tmp_path: Path) -> None:
    """One record a box; an image whose persons the file does not show counts them as missed."""
    boxes = [
        {"image_id": 1, "category_id": 1, "bbox": [5, 5, 30, 40], "score": 0.9},
        {"image_id": 1, "category_id": 3, "bbox": [5, 5, 30, 40], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [5, 5, 0, 40], "score": 0.9},
        {"file_name": "val2017_000003.jpg", "bbox": [1, 2, 30, 40], "score": 0.25},
    ]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(boxes))
    dataset = open_dataset("coco_pose", made, "val2017", boxes=path)
    assert isinstance(dataset, PersonData)
    assert [record.key for record in dataset.records] == [
        *("val2017_000001_box0", "val2017_000002_missed", "val2017_000003_box3"),
        *("val2017_000004_missed", "val2017_000005_missed"),
    ]
    truth = dataset.read_truth(0)
    assert (truth.score, truth.annotation_id, len(truth.persons)) == (0.9, -1, 2)
    assert dataset.read_truth(1).score == 0
    assert dataset.boxes is not None and dataset.boxes.identity()["file"] == "boxes.json"
    with pytest.raises(ValueError, match="training split"):
        open_dataset("coco_pose", made, "train2017", boxes=path)
    with pytest.raises(ValueError, match="coco has no keypoints"):
        open_dataset("coco", made, "val2017", boxes=path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is no JSON"),
        ('{"a": 1}', "holds a dict"),
        ("[]", "no box of a person"),
        ('[{"image_id": 1, "bbox": [1, 2, 3]}]', "entry 0"),
        ('[{"bbox": [1, 2, 3, 4]}]', "neither a whole number as image_id nor a file_name"),
        ('[{"image_id": 1, "bbox": [1, 2, 3, 1e999]}]', "not finite"),
    ],
)
def test_other_files_of_boxes_are_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(content)
    with pytest.raises(DatasetLayoutError, match=words):
        read_box_file(path)


def test_rules_of_keypoints() -> None:
    again = rule_from_json(COCO_KEYPOINTS.names, json.loads(json.dumps(COCO_KEYPOINTS.to_json())))
    assert again == COCO_KEYPOINTS and again.mirrored[5:7] == (6, 5)
    for wrong, words in (
        ({"sigmas": (0.1,)}, "expected 2 numbers"),
        ({"flip_pairs": ((0, 1), (1, 0))}, "stands twice"),
        ({"skeleton": ((0, 2),)}, "of 2, numbered from 0"),
        ({"names": ("a", "a")}, "none twice"),
    ):
        fields: dict[str, Any] = {"names": ("a", "b"), "sigmas": (0.1, 0.1), **wrong}
        with pytest.raises(ValueError, match=words):
            KeypointRule(**fields)


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_images_are_decoded_once_for_all_their_persons(
    split: str, made: Path, nano: FrozenBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the persons of an image stand in two batches; the bytes are those of single loads."""
    renders: list[int] = []
    render = DecoderPool.render_image

    def counted(self: Any, data: bytes, hw: Any, views: Any) -> Any:
        renders.append(len(views))
        return render(self, data, hw, views)

    monkeypatch.setattr(DecoderPool, "render_image", counted)
    dataset = open_dataset("coco_pose", made, split)
    path, summary = run(dataset, tmp_path / "a", nano, batch_rows=1, shard_rows=16)
    assert summary.rows_written == 9 and sorted(renders) == [1, 2, 2, 2, 2]
    monkeypatch.setattr("extract.extractor.row_loader.RowLoader.source_of", None)
    again, _ = run(dataset, tmp_path / "b", nano, batch_rows=1, shard_rows=16)
    assert len(renders) == 5 + 9
    with open_store(path) as one, open_store(again) as other:
        assert one.keys == other.keys
        features = [store.read_features(range(9))["p5"] for store in (one, other)]
        assert np.array_equal(*features)
