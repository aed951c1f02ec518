"""`describe` recognises folders of own data, and says what it could not find out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.datasets import open_dataset
from extract.datasets.own.describing.describe_folder import describe_folder, description_text
from extract.datasets.own.description_file import read_description
from extract.sources.record import DatasetLayoutError
from tests.extract.datasets.made_own import HW, write_masks, write_pair
from tests.extract.own.test_own_voc import thing as voc_thing
from tests.extract.own.test_own_voc import write as write_voc


def written(folder: Path, out: Path) -> str:
    text = description_text(describe_folder(folder), folder, out)
    out.write_text(text)
    return text


def test_images_and_masks_with_a_list_of_names(tmp_path: Path) -> None:
    write_masks(tmp_path / "data", {"train": 4, "test": 2})
    (tmp_path / "data/masks/train/s003.png").unlink()
    (tmp_path / "data/notes.docx").write_bytes(b"")
    text = written(tmp_path / "data", tmp_path / "my.yaml")
    assert "# train: 3 pairs of an image and a mask; pixels 64x48 (3)" in text
    assert "# odd: 1 images without a mask in images/train: s003" in text
    assert "# odd: files of other kinds: 1 of .docx" in text
    found = read_description(tmp_path / "my.yaml")
    assert found.name == "my" and found.classes == {0: "sky", 1: "road", 2: "car"}
    assert found.training == ("train",) and found.data == str(tmp_path / "data")
    assert len(open_dataset(str(tmp_path / "my.yaml"), split="test").records) == 2


def test_values_without_names(tmp_path: Path) -> None:
    values = np.array([0, 5, 255], np.uint8)
    for number in range(3):
        write_pair(
            tmp_path / f"train/img/{number}.jpg", tmp_path / f"train/lab/{number}_m.png", number, values
        )
    draft = describe_folder(tmp_path)
    assert dict(draft.classes) == {0: "class 0", 5: "class 5"}
    assert draft.options == {"image_suffix": "", "mask_suffix": "_m", "ignored": [255]}
    assert any(line.startswith("names of classes") for line in draft.open)
    assert any("a split to test on" in line for line in draft.open)


def test_one_folder_with_lists_of_splits(tmp_path: Path) -> None:
    for number in range(4):
        write_pair(tmp_path / f"JPEGImages/{number}.jpg", tmp_path / f"Masks/{number}.png", number)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text("0\n1\n2\n")
    (tmp_path / "lists/val.txt").write_text("3\n")
    written(tmp_path, tmp_path / "my.yaml")
    found = read_description(tmp_path / "my.yaml")
    assert list(found.splits) == ["train", "val"]
    assert found.splits["val"] == {"images": ("JPEGImages",), "masks": ("Masks",), "list": ("lists/val.txt",)}
    assert [record.key for record in open_dataset(str(tmp_path / "my.yaml"), split="val").records] == ["3"]


def test_a_value_beyond_the_names_is_an_open_question(tmp_path: Path) -> None:
    write_masks(tmp_path, {"train": 2, "test": 1})
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    draft = describe_folder(tmp_path)
    assert dict(draft.classes) == {0: "sky", 1: "road"} and draft.options == {"ignored": [2]}
    assert any("begin at 0 or at 1: 2 names and values 0 to 2" in line for line in draft.open)


def test_depth_maps_in_a_folder_of_masks_are_asked_about_in_few_words(tmp_path: Path) -> None:
    """900 values of 16 bits are no classes, and no list of 900 numbers is printed."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    values = (np.arange(256 * 256) % 900 + 300).reshape(256, 256).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "masks/a.png")
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(tmp_path / "images/a.jpg")
    draft = describe_folder(tmp_path)
    assert any("what 900 values mean" in line and "depth" in line for line in draft.open)
    assert max(map(len, [*draft.found, *draft.open])) < 300 and "ignored" not in draft.options


def test_photographs_alone_are_no_layout(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(noise).save(tmp_path / "photos/a.jpg")
    with pytest.raises(DatasetLayoutError, match=r"no known layout: looked for .* found photos \(1 images"):
        describe_folder(tmp_path)


def test_real_street_scenes_are_recognised(samples: Path, tmp_path: Path) -> None:
    folder = samples / "own/camvid_small"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    written(folder, tmp_path / "streets.yaml")
    found = read_description(tmp_path / "streets.yaml")
    assert len(found.classes) == 11 and found.classes[8] == "car" and found.ignored == (11,)
    assert [len(open_dataset(str(tmp_path / "streets.yaml"), split=s).records) for s in found.splits] == [
        40,
        80,
    ]


def test_voc_is_recognised_with_its_lists_and_difficult_objects(tmp_path: Path) -> None:
    data = tmp_path / "voc"
    write_voc(data, "a", voc_thing("RBC", more="<difficult>1</difficult>") + voc_thing("WBC"))
    write_voc(data, "b", voc_thing("RBC"))
    write_voc(data, "c", voc_thing("RBC"))
    (data / "Annotations" / "odd.xml").write_text("<annotation>")
    (data / "Annotations" / "lonely.xml").write_text("<annotation/>")
    for name, lines in (("train", "a\nb\n"), ("val", "c\n"), ("RBC_train", "a 1\nb -1\n")):
        (data / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (data / "ImageSets" / "Main" / f"{name}.txt").write_text(lines)
    draft = describe_folder(data)
    assert draft.layout == "voc-xml" and draft.training == ["train"] and not draft.open
    assert draft.splits["val"] == {
        "images": ["JPEGImages"],
        "annotations": ["Annotations"],
        "list": ["ImageSets/Main/val.txt"],
    }
    assert draft.classes == {1: "RBC", 2: "WBC"} and draft.class_counts[1] == "3 objects"
    assert "4 objects with boxes and no masks, 1 of them difficult" in draft.found[-1]
    assert any("odd.xml (its xml cannot be parsed" in line for line in draft.odd)
    assert "1 xml files without an image: lonely" in draft.odd
    out = tmp_path / "cells.yaml"
    out.write_text(description_text(draft, data, out))
    assert [record.key for record in open_dataset(str(out)).records] == ["a", "b"]


def test_boxes_that_begin_at_0_are_asked_about(tmp_path: Path) -> None:
    data = tmp_path / "voc"
    write_voc(data, "a", voc_thing("RBC", (0, 0, 79, 59)))
    draft = describe_folder(data)
    assert draft.options == {"first_pixel": 0} and "count from 0 or, as in VOC, from 1" in draft.open[0]
    out = tmp_path / "cells.yaml"
    out.write_text(description_text(draft, data, out))
    assert open_dataset(str(out)).read_truth(0).xywh.tolist() == [[0, 0, 80, 60]]


def test_labels_among_other_kinds_of_masks(tmp_path: Path) -> None:
    """Cityscapes has colours, instances and polygons beside the labels; its names and folders are known."""
    for split in ("train", "val"):
        for number in range(3):
            name, places = (
                f"aachen_{number:06}_000019",
                (f"leftImg8bit/{split}/aachen", f"gtFine/{split}/aachen"),
            )
            image, labels = (tmp_path / "cityscapes" / place / name for place in places)
            write_pair(
                Path(f"{image}_leftImg8bit.png"),
                Path(f"{labels}_gtFine_labelIds.png"),
                number,
                np.array([7, 8, 11], np.uint8),
            )
            ids = np.full(HW, 26001, np.uint16)
            Image.fromarray(ids).save(f"{labels}_gtFine_instanceIds.png")
            Image.new("RGB", HW[::-1]).save(f"{labels}_gtFine_color.png")
            Path(f"{labels}_gtFine_polygons.json").write_text("{}")
    text = written(tmp_path / "cityscapes", tmp_path / "cityscapes.yaml")
    assert "DATASET=cityscapes has names of its classes" in text
    found = read_description(tmp_path / "cityscapes.yaml")
    assert found.name == "own-cityscapes" and set(found.classes) == {7, 8, 11}
    assert (found.image_suffix, found.mask_suffix) == ("_leftImg8bit", "_gtFine_labelIds")
    assert len(open_dataset(str(tmp_path / "cityscapes.yaml"), split="val").records) == 3


def test_masks_in_colours_are_no_classes(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / f"{folder}/{number}.png")
    with pytest.raises(
        DatasetLayoutError, match=r"0\.png is no PNG with one value a pixel .* convert its colours"
    ):
        describe_folder(tmp_path)
