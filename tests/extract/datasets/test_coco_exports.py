"""COCO files as exporters write them: no areas, no masks, ids as text or floats; and what cannot be used."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from extract.datasets import Dataset, DatasetLayoutError, open_dataset
from extract.datasets.coco_json.ids import whole_number
from extract.sources.byte_sources import BAD_TARGET, SourceError
from extract.views.view import View
from tests.extract.datasets.made_coco import made_split, write_split

Edit = Callable[[dict[str, Any]], None]
SPLIT = "val2017"


def edited(root: Path, edit: Edit, split: str = SPLIT) -> Dataset:
    whole, files = made_split(split, 5)
    edit(whole)
    write_split(root / "coco", split, whole, files)
    return open_dataset("coco", root, split)


def each(change: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda whole: [change(annotation) for annotation in whole["annotations"]]  # type: ignore[return-value]


def truths(dataset: Dataset) -> list[Any]:
    return [dataset.read_truth(index) for index in range(len(dataset.records))]


def test_areas_and_boxes_that_are_missing_come_from_the_masks(tmp_path: Path) -> None:
    expected = truths(edited(tmp_path / "a", lambda whole: None))

    def strip(annotation: dict[str, Any]) -> None:
        del annotation["area"], annotation["bbox"], annotation["iscrowd"]

    dataset = edited(tmp_path / "b", each(strip))
    assert dataset.unusable_annotations is None
    for found, original in zip(truths(dataset), expected, strict=True):
        assert found.ids.tolist() == original.ids.tolist()
        masks = [{"size": list(found.original_hw), "counts": s.rle(found.original_hw)} for s in found.shapes]
        assert found.area.tolist() == [float(coco_mask.area(mask)) for mask in masks]
        assert np.allclose(found.area, original.area)
        assert np.abs(found.xywh - original.xywh).max(initial=0) <= 1  # of a mask in whole pixels


@pytest.mark.parametrize("area", [None, float("nan"), "4000", -1, 10**400])
def test_an_area_that_is_no_number_is_as_good_as_none(tmp_path: Path, area: object) -> None:
    dataset = edited(tmp_path, each(lambda annotation: annotation.update(area=area)))
    expected = truths(edited(tmp_path / "a", lambda whole: None))
    assert dataset.unusable_annotations is None
    assert [t.area.tolist() for t in truths(dataset)] == [t.area.tolist() for t in expected]


def with_ids_as(kind: Callable[[int], object]) -> Edit:
    def change(whole: dict[str, Any]) -> None:
        for annotation in whole["annotations"]:
            annotation.update({name: kind(annotation[name]) for name in ("id", "image_id", "category_id")})
        for name in ("images", "categories"):
            for entry in whole[name]:
                entry["id"] = kind(entry["id"])

    return change


@pytest.mark.parametrize("kind", [float, str, lambda number: f"{number:012d}", lambda number: f" {number}.0"])
def test_ids_are_taken_as_what_they_are_and_reported_once(
    tmp_path: Path, kind: Callable[[int], object], caplog: pytest.LogCaptureFixture
) -> None:
    expected = edited(tmp_path / "a", lambda whole: None)
    with caplog.at_level(logging.WARNING):
        found = edited(tmp_path / "b", with_ids_as(kind))
    assert found.records == expected.records and found.annotation_digest == expected.annotation_digest
    (line,) = (record.message for record in caplog.records if "not written as integers" in record.message)
    assert "category_id such as" in line and f"({type(kind(1)).__name__})" in line


def test_numbers_as_people_mean_them() -> None:
    assert [whole_number(value) for value in (7, 7.0, "7", " 007 ", "7.0")] == [7] * 5
    others = (7.5, "seven", "", True, None, [7], float("inf"), float("nan"), "1" * 20, "7.5")
    assert [whole_number(value) for value in others] == [None] * len(others)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w["images"][0].update(id="img_1"), r"has the id 'img_1' \(str\), expected a whole number"),
        (lambda w: w["categories"][0].update(id=1.5), r"category 1\.5 \(float\) 'person'"),
        (lambda w: w["images"][0].update(file_name="caf\udce9.jpg"), r"b'caf\\xe9\.jpg' is not UTF-8"),
    ],
)
def test_ids_and_names_that_mean_nothing_are_named(tmp_path: Path, edit: Edit, message: str) -> None:
    with pytest.raises(DatasetLayoutError, match=message):
        edited(tmp_path, edit)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    whole, files = made_split(SPLIT, 3)
    write_split(tmp_path / "coco", SPLIT, whole, files)
    path = tmp_path / "coco" / "annotations" / f"instances_{SPLIT}.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(open_dataset("coco", tmp_path, SPLIT).records) == 3


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_an_image_whose_annotations_cannot_be_used_is_no_background(tmp_path: Path, split: str) -> None:
    """One that has none, of the test split, is."""

    def change(whole: dict[str, Any]) -> None:
        first = whole["images"][0]["id"]
        for annotation in whole["annotations"]:
            if annotation["image_id"] == first:
                annotation["category_id"] = 12

    dataset = edited(tmp_path, change, split)
    key = json.loads((tmp_path / "coco" / "annotations" / f"instances_{split}.json").read_text())["images"][0]
    name = key["file_name"].removesuffix(".jpg")
    assert list(dataset.unusable_records) == [name]
    assert "none of its 1 annotations can be used" in dataset.unusable_records[name]
    index = [record.key for record in dataset.records].index(name)
    with pytest.raises(SourceError, match=r"category 12 \(int\) is not one of the 80") as caught:
        dataset.read_truth(index)
    assert caught.value.code == BAD_TARGET
    empty = [len(dataset.read_truth(n)) for n in range(len(dataset.records)) if n != index].count(0)
    assert empty == (1 if split == "val2017" else 0)


def test_annotations_of_no_image_count_as_unusable(tmp_path: Path) -> None:
    def change(whole: dict[str, Any]) -> None:
        whole["annotations"][0]["image_id"] = 999_999
        whole["annotations"][1]["image_id"] = "one"

    dataset = edited(tmp_path, change)
    unusable = dataset.unusable_annotations
    assert unusable.count == 2 and set(unusable.reasons) == {
        "its image is not listed",
        "its image has no whole number as its id",
    }


NO_MASK = [None, [], [[]], {}, {"counts": []}]


@pytest.mark.parametrize("segmentation", NO_MASK)
def test_a_file_without_masks_is_a_data_set_of_boxes(
    tmp_path: Path, segmentation: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = edited(tmp_path, each(lambda annotation: annotation.update(segmentation=segmentation)))
        names = [target.name for target in dataset.target_specs(True, [])]
    assert dataset.boxes_only and dataset.unusable_annotations is None
    assert [record.message for record in caplog.records] == [
        "val2017: annotations have boxes and no masks: the store and its heads are of boxes only"
    ]
    assert names == [
        *("listed", "boxes", "labels", "crowd_boxes", "original_xywh", "original_labels", "original_crowd"),
        *("original_area", "original_ids", "image_id"),
    ]
    truth = max(truths(dataset), key=len)
    targets = dataset.targets(truth, whole_view(truth.original_hw))
    assert set(targets) == set(names)
    corners = np.concatenate([truth.xywh[:, :2], truth.xywh[:, :2] + truth.xywh[:, 2:]], axis=1)
    assert np.allclose(targets["boxes"], corners[~truth.crowd])
    assert targets["labels"].tolist() == truth.labels[~truth.crowd].tolist()


def whole_view(hw: tuple[int, int], flip: bool = False) -> View:
    return View(
        resized_hw=hw,
        crop_yx=(0, 0),
        valid_hw=hw,
        padded_hw=(-(-hw[0] // 32) * 32, -(-hw[1] // 32) * 32),
        flip=flip,
    )


def test_boxes_are_scaled_cropped_and_flipped_with_their_fractions(tmp_path: Path) -> None:
    dataset = edited(tmp_path, each(lambda annotation: annotation.pop("segmentation")))
    truth = max(truths(dataset), key=len)
    height, width = truth.original_hw
    view = View(
        resized_hw=(2 * height, 3 * width), crop_yx=(10, 20), valid_hw=(64, 96), padded_hw=(64, 96), flip=True
    )
    expected = []
    for (x, y, w, h), crowd in zip(truth.xywh.tolist(), truth.crowd, strict=True):
        x1, x2 = (min(max(3 * value - 20, 0), 96) for value in (x, x + w))
        y1, y2 = (min(max(2 * value - 10, 0), 64) for value in (y, y + h))
        if not crowd and x2 - x1 >= 0.01 and y2 - y1 >= 0.01:
            expected.append([96 - x2, y1, 96 - x1, y2])
    assert np.allclose(dataset.targets(truth, view)["boxes"], np.array(expected).reshape(-1, 4), atol=1e-4)


def test_masks_that_are_missing_here_and_there_are_unusable(tmp_path: Path) -> None:
    dataset = edited(tmp_path, lambda whole: whole["annotations"][0].update(segmentation=[]))
    assert not dataset.boxes_only
    assert dict(dataset.unusable_annotations.reasons) == {"no segmentation": 1}
