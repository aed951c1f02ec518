"""Ready-made descriptions: cityscapes, VOC and COCO-Stuff as their downloads lie."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.datasets import DatasetLayoutError, choose, dataset_module, open_dataset
from extract.datasets.coco import CATEGORIES
from extract.datasets.own.data_module import OwnData
from extract.datasets.own.ready_made_sets import ready_made_names

HW = (32, 64)
TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Ids of Cityscapes by train id: labels.py of cityscapesScripts."""


def write_cityscapes(root: Path, split: str = "train") -> np.ndarray:
    """Two cities with all four kinds of files of the download; returns the ids, uint8 (32, 64)."""
    ids = np.arange(32 * 64, dtype=np.uint8).reshape(HW) % 34
    ids[0, 0] = 255  # license plate, -1
    train_ids = np.full(256, 255, np.uint8)
    train_ids[list(TRAIN_IDS)] = np.arange(19)
    for city in ("aachen", "ulm"):
        for kind in ("leftImg8bit", "gtFine"):
            (root / kind / split / city).mkdir(parents=True, exist_ok=True)
        base = f"{city}_000000_000019"
        Image.fromarray(np.full((*HW, 3), 90, np.uint8)).save(
            root / "leftImg8bit" / split / city / f"{base}_leftImg8bit.png"
        )
        truth = root / "gtFine" / split / city
        kinds = {"labelIds": ids, "labelTrainIds": train_ids[ids], "instanceIds": ids.astype(np.uint16)}
        for end, values in kinds.items():
            Image.fromarray(values).save(truth / f"{base}_gtFine_{end}.png")
        Image.fromarray(np.zeros((*HW, 3), np.uint8)).save(truth / f"{base}_gtFine_color.png")
        (truth / f"{base}_gtFine_polygons.json").write_text("{}")
    return train_ids[ids]


def test_both_cityscapes_have_the_19_train_ids(tmp_path: Path) -> None:
    expected = write_cityscapes(tmp_path / "cityscapes")
    for name in ("cityscapes", "cityscapes-trainids"):
        for data in (tmp_path, tmp_path / "cityscapes"):  # the folder or its parent
            dataset = open_dataset(name, data, "train")
            keys = [record.key for record in dataset.records]
            assert keys == ["aachen/aachen_000000_000019", "ulm/ulm_000000_000019"]
            assert np.array_equal(dataset.read_truth(0), expected)
    assert dataset.class_names[0] == "road" and dataset.class_names[18] == "bicycle"
    views = choose("cityscapes", "train").recipe.identity()
    assert (views["crop_px"], views["scale_px"]) == ([512, 1024], [4096, 1024])
    test = choose("cityscapes", "val").recipe.identity()
    assert test["scale_px"] == [4096, 1024]
    smaller = choose("cityscapes", "train", crop_size=256).recipe.identity()
    assert (smaller["crop_px"], smaller["scale_px"]) == (256, [1024, 256])


def test_voc_2012_reads_palettes_and_lists(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    values = np.zeros(HW, np.uint8)
    values[:, 20:40], values[:, 40] = 15, 255
    for name in ("2007_000032", "2007_000039"):
        Image.fromarray(np.full((*HW, 3), 90, np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(values, "P")
        mask.putpalette([(7 * number) % 256 for number in range(768)])
        mask.save(root / "SegmentationClass" / f"{name}.png")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000032\n")
    for data in (tmp_path, tmp_path / "VOCdevkit", root):
        dataset = open_dataset("voc2012", data)
        assert [record.key for record in dataset.records] == ["2007_000032"]
        truth = dataset.read_truth(0)
        assert dataset.class_names[15] == "person"
        assert np.array_equal(truth, values)
    with pytest.raises(DatasetLayoutError, match=r"looked for the list .*val\.txt.*describe FOLDER"):
        open_dataset("voc2012", root, "val")


def test_coco_stuff_has_its_171_classes_at_their_values() -> None:
    module = dataset_module("coco-stuff")
    assert isinstance(module, OwnData)
    described = module.description
    assert len(described.classes) == 171 and set(described.ignored) | set(described.classes) == {
        *range(182),
        255,
    }
    assert {number + 1: name for number, name in described.classes.items() if number < 91} == CATEGORIES
    assert (described.classes[91], described.classes[148], described.classes[181]) == (
        "banner",
        "road",
        "wood",
    )


@pytest.mark.parametrize("name", ready_made_names())
def test_every_description_of_a_public_set_can_be_copied(name: str, tmp_path: Path) -> None:
    """Its text, under another name, is a description of own data."""
    module = dataset_module(name)
    assert isinstance(module, OwnData) and module.description.name == name
    assert not Path(module.DEFAULT_FOLDER).is_absolute()


def test_an_own_description_cannot_take_a_public_name(tmp_path: Path) -> None:
    text = "name: voc2012\nlayout: masks\nsplits: {train: {images: a, masks: b}}\nclasses: [x, y]\n"
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(DatasetLayoutError, match="'voc2012' is a data set; choose another name"):
        dataset_module(str(tmp_path / "my.yaml"))


def test_another_folder_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetLayoutError) as refused:
        open_dataset("cityscapes", tmp_path)
    message = str(refused.value)
    assert "looked for leftImg8bit/train/*_leftImg8bit.jpg (or another image)" in message
    assert "gtFine/train/*_gtFine_labelIds.png" in message and "describe FOLDER" in message
