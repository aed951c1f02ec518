"""Layout voc-xml: Pascal VOC's xml files, lists and difficult objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.datasets import DatasetLayoutError, open_dataset
from extract.datasets.own.voc_xml import NotVoc, read_voc
from extract.sources.byte_sources import SourceError
from extract.views.view import View

DESCRIPTION = """
name: cells
layout: voc-xml
data: data
splits:
  train: {images: JPEGImages, annotations: Annotations, list: ImageSets/Main/train.txt}
classes: [RBC, WBC]
"""
HW = (60, 80)
PLAIN = View(resized_hw=HW, valid_hw=HW, padded_hw=(64, 96))


def thing(name: str = "RBC", corners: tuple[object, ...] = (1, 1, 80, 60), more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def write(root: Path, name: str, objects: str, size: str = "<width>80</width><height>60</height>") -> None:
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*HW, 3), 90, np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
    text = f"<annotation><size>{size}</size>{objects}</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(text)


def write_list(root: Path, *lines: str) -> None:
    (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def described(tmp_path: Path) -> Path:
    (tmp_path / "cells.yaml").write_text(DESCRIPTION)
    return tmp_path / "cells.yaml"


@pytest.fixture
def root(described: Path) -> Path:
    return described.parent / "data"


def test_pixels_count_from_1_and_the_last_one_is_part_of_the_box(root: Path, described: Path) -> None:
    write(root, "000007", thing() + thing("WBC", (11, 21, 20, 50)))
    write_list(root, "000007")
    truth = open_dataset(str(described)).read_truth(0)
    assert truth.image_id == 7
    assert truth.xywh.tolist() == [[0, 0, 80, 60], [10, 20, 10, 30]] and truth.labels.tolist() == [0, 1]
    described.write_text(DESCRIPTION + "first_pixel: 0\n")
    assert open_dataset(str(described)).read_truth(0).xywh[1].tolist() == [11, 21, 10, 30]


def test_difficult_objects_are_not_trained_on_and_truncated_ones_are(root: Path, described: Path) -> None:
    difficult, truncated = "<difficult>1</difficult>", "<truncated>1</truncated><difficult>0</difficult>"
    write(root, "a", thing("RBC", (11, 11, 40, 40), difficult) + thing("WBC", (41, 11, 70, 40), truncated))
    write_list(root, "a")
    dataset = open_dataset(str(described))
    assert dataset.boxes_only and dataset.read_truth(0).crowd.tolist() == [True, False]  # type: ignore[attr-defined]
    targets = dataset.targets(dataset.read_truth(0), PLAIN)
    assert targets["boxes"].tolist() == [[40, 10, 70, 40]] and targets["labels"].tolist() == [1]
    assert targets["crowd_boxes"].tolist() == [[10, 10, 40, 40]]


def test_a_list_of_a_class_leaves_out_minus_1_and_sizes_may_lack(root: Path, described: Path) -> None:
    for name in ("2008_1", "2008_2", "2008_3"):
        write(root, name, thing(), "<width>0</width><height>0</height>")
    write_list(root, "2008_1  1", "2008_2 -1", "2008_3  0")
    dataset = open_dataset(str(described))
    assert [(record.key, record.original_hw) for record in dataset.records] == [
        ("2008_1", HW),
        ("2008_3", HW),
    ]
    assert [dataset.read_truth(index).image_id for index in range(2)] == [1, 2]


def test_what_cannot_be_used_is_named(root: Path, described: Path) -> None:
    write(root, "a", thing() + thing("cat") + thing(corners=("x", 1, 5, 5)) + thing(corners=(9, 9, 3, 20)))
    write(root, "b", thing())
    (root / "Annotations" / "b.xml").write_text("<annotation><object>")
    write(root, "c", thing())
    (root / "Annotations" / "c.xml").unlink()
    write(root, "d", thing())
    (root / "JPEGImages" / "d.jpg").unlink()
    write_list(root, "a", "b", "c", "d")
    dataset = open_dataset(str(described))
    assert len(dataset.read_truth(0)) == 1
    reasons = [reason for _, reason in dataset.read_truth(0).skipped]
    assert reasons[0] == "category 'cat' (str) is not one of the 2"
    assert reasons[1] == "its box is not four numbers" and reasons[2].startswith("a box of zero area")
    unusable = dataset.unusable_records  # type: ignore[attr-defined]
    assert unusable["b"].startswith("its xml cannot be parsed: ")
    assert (unusable["c"], unusable["d"]) == ("its xml is missing", "its image is missing")
    with pytest.raises(SourceError, match="its xml is missing"):
        dataset.read_source(2)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("a", "a"), "split train of cells: 'a' is listed twice"),
        (("../a",), "expected a name below the folder of images"),
        (
            ("z",),
            r"no image with an annotation, such as z: its xml is missing; .* 1 entry: a.jpg",
        ),
        ((), "found 0 names and no image with an annotation"),
    ],
)
def test_lists_that_cannot_be_used(lines: tuple[str, ...], says: str, root: Path, described: Path) -> None:
    write(root, "a", thing())
    write_list(root, *lines)
    with pytest.raises(DatasetLayoutError, match=says) as refused:
        open_dataset(str(described))
    assert len(lines) != 1 or lines[0] != "z" or "describe FOLDER" in str(refused.value)


def test_a_missing_list_is_named_with_what_is_there(root: Path, described: Path) -> None:
    write(root, "a", thing())
    with pytest.raises(DatasetLayoutError, match=r"looked for the list .*train.txt: .*does not exist; own"):
        open_dataset(str(described))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<html></html>", "holds <html>, expected <annotation>"),
        (b"", "cannot be parsed"),
        (b"<annotation>" + b" " * (16 << 20) + b"</annotation>", "at most 16777216 are read"),
    ],
)
def test_other_xml_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(NotVoc, match=says):
        read_voc(data)


def test_a_bomb_of_entities_is_refused() -> None:
    layers = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE annotation [<!ENTITY e0 "lol">{layers}]><annotation><x>&e9;</x></annotation>'
    with pytest.raises(NotVoc, match="cannot be parsed"):
        read_voc(bomb.encode())


def test_boxes_of_a_real_set_are_those_of_its_json(samples: Path, tmp_path: Path) -> None:
    """bccd_small has both: its json was made from its xml files, with corners as they stand there."""
    data = samples / "own" / "bccd_small"
    if not data.is_dir():
        pytest.skip("needs own/bccd_small")
    text = DESCRIPTION.replace("data: data", f"data: {data}").replace("[RBC, WBC]", "[RBC, WBC, Platelets]")
    (tmp_path / "cells.yaml").write_text(text)
    of_xml = open_dataset(str(tmp_path / "cells.yaml"))
    (tmp_path / "json.yaml").write_text(
        f"name: json\nlayout: coco-json\ndata: {data}\n"
        "splits: {train: {annotations: train.json, images: JPEGImages}}\n"
        "classes: {1: RBC, 2: WBC, 3: Platelets}\n"
    )
    of_json = open_dataset(str(tmp_path / "json.yaml"))
    assert [r.key for r in of_xml.records] == [r.key for r in of_json.records] and len(of_xml.records) == 60
    for index in range(60):
        one, other = of_xml.read_truth(index), of_json.read_truth(index)
        assert one.labels.tolist() == other.labels.tolist()
        assert np.abs(one.xywh - other.xywh).max() <= 1
