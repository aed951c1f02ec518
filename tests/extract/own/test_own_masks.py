"""Own data of images and masks: what a description says, what it refuses, and which labels come out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.datasets import choose, dataset_module, dataset_name, first_test_split, open_dataset
from extract.datasets.own.description import description_of
from extract.datasets.own.description_file import read_description
from extract.datasets.own.mask_pairs import decode_mask
from extract.planning.dataset_identity import own_description
from extract.sources.byte_sources import SourceError
from extract.sources.record import DatasetLayoutError
from tests.extract.datasets.made_own import (
    CLASSES,
    DESCRIPTION,
    HW,
    scene,
    write_description,
    write_masks,
    write_pair,
)


@pytest.fixture
def described(tmp_path: Path) -> Path:
    write_masks(tmp_path / "data", {"train": 3, "test": 2})
    return write_description(tmp_path / "my.yaml")


def test_a_description_stands_for_a_name(described: Path) -> None:
    train, test = (open_dataset(str(described), split=split) for split in ("train", "test"))
    assert [record.key for record in train.records] == ["s000", "s001", "s002"] and len(test.records) == 2
    assert train.is_training and not test.is_training and train.records[0].original_hw == HW
    assert train.name == "streets" and train.class_names == CLASSES and train.num_classes == 3
    assert np.array_equal(train.read_truth(1), scene(1)[1])
    assert first_test_split(str(described)) == "test" and dataset_name(str(described)) == "streets"
    chosen = choose(str(described))
    assert (chosen.dataset, chosen.split, chosen.recipe.name) == ("streets", "train", "crops")
    assert choose(str(described), "test").recipe.name == "single"


def test_an_identity_opens_the_same_data(described: Path) -> None:
    dataset = open_dataset(str(described), split="test")
    identity = {"name": dataset.name, **own_description(dataset)}
    again = open_dataset(identity, described.parent / "data", "test")
    assert again.annotation_digest == dataset.annotation_digest
    found = description_of(identity)
    assert found is not None and found.content() == read_description(described).content()
    assert description_of({"name": "ade20k"}) is None


def test_the_path_is_no_part_of_the_identity(described: Path) -> None:
    moved = described.parent / "deep" / "other.yaml"
    moved.parent.mkdir()
    moved.write_text("# a comment\n" + DESCRIPTION.replace("data: data", "data: ../data"))
    assert read_description(moved).content() == read_description(described).content()
    assert read_description(moved).data == str(described.parent / "data")


def png(array: np.ndarray, tmp_path: Path, **how: object) -> bytes:
    path = tmp_path / "mask.png"
    image = Image.fromarray(array)
    if palette := how.get("palette"):
        image.putpalette(palette)
    image.save(path, **({"bits": how["bits"]} if "bits" in how else {}))
    return path.read_bytes()


def test_masks_of_every_kind(tmp_path: Path) -> None:
    """Gray of 8 and 16 bits, 1 bit, and palettes of 2 and 8 bits, hold their values as they stand."""
    labels = np.array([[0, 1], [1, 2]], np.uint8)
    names = {0: "a", 1: "b", 2: "c"}
    palette = list(range(255, 255 - 9, -1))
    for data in (
        png(labels, tmp_path),
        png(labels.astype(np.uint16), tmp_path),
        png(labels, tmp_path, palette=palette),
        png(labels, tmp_path, palette=palette, bits=2),
    ):
        assert np.array_equal(decode_mask(data, (2, 2), classes=names, ignored=[]), labels)
    one_bit = png(labels > 0, tmp_path)
    assert decode_mask(one_bit, (2, 2), classes=names, ignored=[]).tolist() == [[0, 1], [1, 1]]
    deep = png(np.array([[300, 4000]], np.uint16), tmp_path)
    assert decode_mask(deep, (1, 2), classes={4000: "a"}, ignored=[300]).tolist() == [[255, 0]]


def test_bad_masks_are_refused(tmp_path: Path) -> None:
    labels = np.array([[0, 9]], np.uint8)
    with pytest.raises(SourceError, match=r"mask holds 9, .* 2 classes \(0 to 1\) and not ignored \(255\)"):
        decode_mask(png(labels, tmp_path), (1, 2), classes={0: "a", 1: "b"}, ignored=[255])
    with pytest.raises(SourceError, match="mask of 2x1 pixels, its image has 3x1"):
        decode_mask(png(labels, tmp_path), (1, 3), classes={0: "a"}, ignored=[9])
    with pytest.raises(SourceError, match=r"a PNG in colours \(type 2\), expected one value a pixel"):
        decode_mask(png(np.zeros((1, 2, 3), np.uint8), tmp_path), (1, 2), classes={0: "a"}, ignored=[])
    with pytest.raises(SourceError, match="not an image"):
        decode_mask(b"nothing", (1, 2), classes={0: "a"}, ignored=[])


def test_offset_and_values_of_classes(described: Path) -> None:
    """An offset of 1 with 0 ignored, and the same classes by their values."""
    data = described.parent / "data"
    for number in range(3):
        write_pair(
            data / f"images/train/s{number:03d}.jpg",
            data / f"masks/train/s{number:03d}.png",
            number,
            np.array([0, 1, 2], np.uint8),
        )
    by_offset = DESCRIPTION.replace("[sky, road, car]", "[road, car]\noffset: 1").replace("[255]", "[0, 255]")
    by_value = DESCRIPTION.replace("[sky, road, car]", "{1: road, 2: car}").replace("[255]", "[0, 255]")
    expected = scene(0)[1].astype(int) - 1
    for text in (by_offset, by_value):
        truth = open_dataset(str(write_description(described, text)), split="train").read_truth(0)
        assert np.array_equal(truth, np.where(expected < 0, 255, expected))
    assert read_description(described).classes == {1: "road", 2: "car"}


def test_suffixes_and_folders_below(tmp_path: Path) -> None:
    """Street scenes by city, with stems that end in what the file holds."""
    for city, number in (("aachen", 0), ("bonn", 1)):
        write_pair(
            tmp_path / f"data/left/train/{city}/{city}_{number}_left.jpg",
            tmp_path / f"data/gt/train/{city}/{city}_{number}_gt_ids.png",
            number,
        )
        Image.new("L", HW[::-1]).save(tmp_path / f"data/gt/train/{city}/{city}_{number}_gt_instances.png")
    text = DESCRIPTION.replace("images/train", "left/train").replace("masks/train", "gt/train")
    text += "image_suffix: _left\nmask_suffix: _gt_ids\n"
    dataset = open_dataset(str(write_description(tmp_path / "my.yaml", text)), split="train")
    assert [record.key for record in dataset.records] == ["aachen/aachen_0", "bonn/bonn_1"]
    assert np.array_equal(dataset.read_truth(1), scene(1)[1])


def test_lists(described: Path) -> None:
    """A list of names picks pairs from folders; a list of pairs names both files."""
    data = described.parent / "data"
    (data / "some.txt").write_text("s002\ns000.jpg\n")
    text = DESCRIPTION.replace("masks: masks/train}", "masks: masks/train, list: some.txt}")
    dataset = open_dataset(str(write_description(described, text)), split="train")
    assert [record.key for record in dataset.records] == ["s000", "s002"]
    (data / "pairs.txt").write_text("images/test/s001.jpg, masks/test/s001.png\nimages/a.jpg, masks/a.png\n")
    text = DESCRIPTION.replace("{images: images/train, masks: masks/train}", "{pairs: pairs.txt}")
    dataset = open_dataset(str(write_description(described, text)), split="train")
    assert [record.key for record in dataset.records] == ["images/a", "images/test/s001"]
    assert dict(dataset.unusable_records) == {"images/a": "its mask is missing"}
    (data / "pairs.txt").write_text("images/test/s001.jpg\n")
    with pytest.raises(DatasetLayoutError, match=r"pairs\.txt: line 1: .* expected the paths of an image"):
        open_dataset(str(described), split="train")


def test_a_wrong_folder_names_what_was_looked_for(described: Path) -> None:
    with pytest.raises(
        DatasetLayoutError,
        match=r"looked for images/train/\*\.jpg .* and masks/train/\*\.png of equal names, "
        r"found 0 images and 0 masks; .*images/train does not exist; .*describe FOLDER --out my\.yaml",
    ):
        open_dataset(str(described), described.parent, "train")
    with pytest.raises(DatasetLayoutError, match=r"describe FOLDER --out my\.yaml"):
        open_dataset("ade20k", described.parent, "training")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("layout: masks", "layout: mask", "layout: 'mask', available: masks"),
        ("layout: masks", "", "layout: is missing"),
        ("classes:", "class:", "class: unknown key; did you mean classes?"),
        (
            "[sky, road, car]",
            "[sky, no, car]",
            "classes: False, expected a name on one line",
        ),
        ("[sky, road, car]", "[sky, road, sky]", "classes: 'sky' twice"),
        ("[sky, road, car]", "[]", "classes: {}, expected 1 to 255 names"),
        ("ignored: [255]", "ignored: [1]", "ignored: 1 is the class 'road' too"),
        ("ignored: [255]", "ignored: [a]", "ignored: 'a', expected a whole number from 0"),
        ("masks: masks/test", "mask: masks/test", "splits.test.mask: unknown key; did you mean masks?"),
        (
            ", masks: masks/train",
            "",
            "splits.train: has images; a split to train on needs {images: ..., masks",
        ),
        ("images: images/test, ", "", "splits.test: has masks, expected {images: ..., masks: ...} or {pairs"),
        ("images/test", "../images", "splits.test.images: '../images', expected a path below the folder"),
        ("name: streets", "name: a/b", "name: 'a/b', expected letters, digits"),
        ("name: streets", "name: coco", "name: 'coco' is a data set; choose another name"),
        (
            "name: streets",
            "name: streets\ntraining: [dev]",
            "training: ['dev'], expected some of train, test",
        ),
        ("splits:", "splits: [", "cannot be read as a description"),
    ],
)
def test_a_bad_description_names_its_key(described: Path, old: str, new: str, message: str) -> None:
    write_description(described, DESCRIPTION.replace(old, new, 1))
    with pytest.raises(DatasetLayoutError) as caught:
        dataset_module(str(described))
    assert str(described) in str(caught.value) and message in str(caught.value)


def test_a_description_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(DatasetLayoutError, match=r"nope\.yaml does not exist: .* writes one"):
        open_dataset(str(tmp_path / "nope.yaml"))
    with pytest.raises(ValueError, match=r"no data set 'nope'; .* my\.yaml for own data"):
        open_dataset("nope")


def test_without_a_test_split(described: Path) -> None:
    write_description(
        described, DESCRIPTION.replace("  test: {images: images/test, masks: masks/test}\n", "")
    )
    with pytest.raises(ValueError, match="streets has no split to test on: add one to `splits`"):
        first_test_split(str(described))
