"""Stuff maps of COCO: pixel maps and panoptic PNGs as a target of training rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extract.datasets import DatasetLayoutError, dataset_module, open_dataset
from extract.planning.dataset_identity import stuff_kind
from extract.sources.byte_sources import SourceError
from extract.views.view import View
from stores.format.plan import DenseTarget

RECORDS = 3


def write_pixel_maps(root: Path, split: str = "train2017") -> dict[str, np.ndarray]:
    """A map of random values for every image of a sample of COCO, by key."""
    generator, found = np.random.default_rng(1), {}
    (root / "stuffthingmaps" / split).mkdir(parents=True)
    for path in sorted((root / split).iterdir()):
        with Image.open(path) as image:
            hw = image.height, image.width
        found[path.stem] = generator.choice([0, 91, 181, 255], hw).astype(np.uint8)
        Image.fromarray(found[path.stem]).save(root / "stuffthingmaps" / split / f"{path.stem}.png")
    return found


def write_panoptic(root: Path, split: str = "train2017") -> dict[str, np.ndarray]:
    """Three segments of categories 1, 118 and 200 in every image; 0 is unlabelled. Returns places, 255."""
    (root / "annotations" / f"panoptic_{split}").mkdir(parents=True)
    annotations, found = [], {}
    for path in sorted((root / split).iterdir()):
        with Image.open(path) as image:
            hw = image.height, image.width
        segments = {70_000 + number: category for number, category in enumerate((118, 1, 200))}
        numbers = np.zeros(hw, np.int64)
        numbers[:20], numbers[20:40], numbers[40:50] = segments
        rgb = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1).astype(np.uint8)
        Image.fromarray(rgb).save(root / "annotations" / f"panoptic_{split}" / f"{path.stem}.png")
        places = np.full(hw, 255, np.uint8)
        places[:20], places[20:40], places[40:50] = 1, 0, 2
        found[path.stem] = places
        infos = [{"id": number, "category_id": category} for number, category in segments.items()]
        annotations.append({"file_name": f"{path.stem}.png", "image_id": 1, "segments_info": infos})
    categories = [{"id": number, "name": str(number)} for number in (200, 1, 118)]
    whole = {"annotations": annotations, "categories": categories}
    (root / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(whole))
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    dataset_module("coco").write_sample(tmp_path, RECORDS, np.random.default_rng(0))
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "write"), [("stuffthingmaps", write_pixel_maps), ("panoptic", write_panoptic)]
)
def test_maps_follow_their_images(kind: str, write: Any, root: Path) -> None:
    """Through crop and flip as the pixels go; and they are part of the annotations' digest."""
    maps = write(root)
    plain, dataset = open_dataset("coco", root), open_dataset("coco", root, stuff=kind)
    assert stuff_kind(dataset) == {"stuff": kind} and stuff_kind(plain) == {}
    assert dataset.annotation_digest != plain.annotation_digest
    for index, record in enumerate(dataset.records):
        truth = dataset.read_truth(index)
        assert np.array_equal(truth.stuff, maps[record.key])
        hw = record.original_hw
        view = View(resized_hw=hw, crop_yx=(8, 4), valid_hw=(32, 48), padded_hw=(64, 64), flip=True)
        targets = dataset.targets(truth, view)
        assert np.array_equal(targets["stuff"][:32, :48], maps[record.key][8:40, 4:52][:, ::-1])
        assert (targets["stuff"][32:] == 255).all() and (targets["stuff"][:, 48:] == 255).all()
        others = plain.targets(plain.read_truth(index), view)
        assert all(np.array_equal(targets[name], others[name]) for name in others)
    specs = dataset.target_specs(False, [view.to_params()[None]] * RECORDS)
    assert specs[-1] == DenseTarget("stuff", "uint8", ("y", "x"))
    known = {"name": "coco", "stuff": kind}  # of a store's identity, as verify --source has it
    assert open_dataset(known, root, "train2017").annotation_digest == dataset.annotation_digest


def test_maps_that_cannot_be_used_skip_their_record(root: Path) -> None:
    write_pixel_maps(root)
    folder = root / "stuffthingmaps" / "train2017"
    (folder / "000000000001.png").unlink()
    Image.fromarray(np.full((80, 64), 200, np.uint8)).save(folder / "000000000002.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "000000000003.png")
    dataset = open_dataset("coco", root, stuff="stuffthingmaps")
    keys = [record.key for record in dataset.records]
    reasons = []
    for index in range(RECORDS):
        with pytest.raises(SourceError) as error:
            dataset.read_truth(index)
        reasons.append(error.value.reason)
    assert keys[0] == "000000000001" and reasons[0] == "its stuff map is missing"
    assert dataset.unusable_records == {"000000000001": "its stuff map is missing"}  # type: ignore[attr-defined]
    assert any(reason.startswith("stuff map holds 200, expected 0 to 182 and 255") for reason in reasons)
    assert any(reason.startswith("stuff map of 9x9 pixels, its image has") for reason in reasons)


def test_a_segment_that_the_json_lacks_is_named(root: Path) -> None:
    write_panoptic(root)
    path = root / "annotations" / "panoptic_train2017.json"
    whole = json.loads(path.read_text())
    del whole["annotations"][0]["segments_info"][0]
    path.write_text(json.dumps(whole))
    with pytest.raises(SourceError, match="panoptic map holds segment 70000, which its json lacks"):
        open_dataset("coco", root, stuff="panoptic").read_truth(0)


@pytest.mark.parametrize(
    ("name", "split", "kind", "says"),
    [
        (
            "coco",
            None,
            "stuffthingmaps",
            r"looked for stuff maps .*stuffthingmaps/train2017/\*\.png, found none; get",
        ),
        (
            "coco",
            None,
            "panoptic",
            r"looked for .*panoptic_train2017\.json and .*, found neither; get panoptic",
        ),
        ("coco", None, "other", "coco has no such maps; it has stuffthingmaps, panoptic"),
        ("coco", "val2017", "panoptic", "heads learn from these maps, and val2017 is a test split"),
        ("ade20k", None, "panoptic", "--stuff panoptic: ade20k has no such maps; it has none"),
        ("voc2007", None, "panoptic", "a description names the folder of maps, as `stuff` of a split"),
    ],
)
def test_what_is_not_there_is_named(name: str, split: str | None, kind: str, says: str, root: Path) -> None:
    with pytest.raises((DatasetLayoutError, ValueError), match=says):
        open_dataset(name, root, split, stuff=kind)


def test_own_instances_have_maps_in_the_folder_that_their_description_names(tmp_path: Path) -> None:
    text = (
        "name: streets\nlayout: coco-json\ndata: data\nsplits:\n"
        "  train: {annotations: train.json, images: pictures, stuff: maps}\n"
        "classes: {7: road, 30: car}\n"
    )
    (tmp_path / "my.yaml").write_text(text)
    dataset_module(str(tmp_path / "my.yaml")).write_sample(tmp_path / "data", 2, np.random.default_rng(0))
    (tmp_path / "data" / "maps").mkdir()
    for path in (tmp_path / "data" / "pictures").iterdir():
        with Image.open(path) as image:
            hw = image.height, image.width
        Image.fromarray(np.full(hw, 5, np.uint8)).save(tmp_path / "data" / "maps" / f"{path.stem}.png")
    dataset = open_dataset(str(tmp_path / "my.yaml"))
    assert (dataset.read_truth(0).stuff == 5).all()
