"""COCO's records and annotations: the official layout, tars of it, what is left out, and bad input."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from extract.datasets import Dataset, DatasetLayoutError, open_dataset
from extract.datasets.coco import CATEGORY_IDS, CLASS_NAMES, LABELS
from extract.datasets.coco_json.annotations import _decoded_counts, annotation_bytes, parse_annotations
from extract.sources.byte_sources import BAD_TARGET, SourceError
from extract.sources.tar_index import HostileTarError
from extract.views.instances import Instances
from stores.format.row_table import UNDECODABLE
from tests.extract.datasets.made_ade20k import write_tar
from tests.extract.datasets.made_coco import annotation, made_split, tar_members, write_folder, write_split

HW = (20, 30)
IMAGE = {"id": 5, "height": HW[0], "width": HW[1]}
GOOD = annotation(1, IMAGE, 1, [[2.0, 2.0, 12.5, 2.0, 12.5, 9.0, 2.0, 9.0]])


def quiet(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def parsed(*entries: dict) -> Instances:
    return parse_annotations(annotation_bytes(5, HW, (0, 1), entries), LABELS)


def assert_is_the_file(dataset: Dataset, path: Path) -> None:
    """Every annotation, by pycocotools."""
    official = quiet(path)
    for index, record in enumerate(dataset.records):
        truth = dataset.read_truth(index)
        assert record.key == official.imgs[truth.image_id]["file_name"].removesuffix(".jpg")
        entries = sorted(official.imgToAnns[truth.image_id], key=lambda entry: entry["id"])
        assert truth.ids.tolist() == [entry["id"] for entry in entries]
        assert truth.crowd.tolist() == [bool(entry["iscrowd"]) for entry in entries]
        assert truth.area.tolist() == [entry["area"] for entry in entries]
        assert truth.xywh.tolist() == [entry["bbox"] for entry in entries]
        assert [CATEGORY_IDS[label] for label in truth.labels] == [entry["category_id"] for entry in entries]
        for shape, entry in zip(truth.shapes, entries, strict=True):
            assert shape.rle(truth.original_hw) == official.annToRLE(entry)["counts"]
            x1, y1, x2, y2 = shape.extent()
            x, y, w, h = coco_mask.toBbox(official.annToRLE(entry))
            assert x1 - 1 <= x and y1 - 1 <= y and x + w <= x2 + 1 and y + h <= y2 + 1


def test_official_layout(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train=12, val=5)
    for folder in (root, tmp_path):  # the folder, or its parent
        dataset = open_dataset("coco", folder, "val2017")
        assert (dataset.name, dataset.task, dataset.num_classes) == ("coco", "detection", 80)
        assert len(dataset.records) == 5 and not dataset.is_training
    assert_is_the_file(dataset, root / "annotations" / "instances_val2017.json")
    assert [len(dataset.read_truth(index)) for index in range(5)].count(0) == 1  # kept to test on
    training = open_dataset("coco", root)
    assert training.is_training and len(training.records) == 11  # the image without annotations is left out
    assert [record.key for record in training.records] == sorted(record.key for record in training.records)
    for index, record in enumerate(training.records):
        path = root / "train2017" / f"{record.key}.jpg"
        assert training.read_source(index) == path.read_bytes()
        assert record.source_bytes == path.stat().st_size


def test_classes_are_the_official_ones_in_the_order_of_their_ids() -> None:
    assert len(CLASS_NAMES) == 80 and list(CATEGORY_IDS) == sorted(CATEGORY_IDS)
    assert (CLASS_NAMES[0], CLASS_NAMES[11], CLASS_NAMES[79]) == ("person", "stop sign", "toothbrush")
    assert (LABELS[1], LABELS[13], LABELS[90]) == (0, 11, 79) and 12 not in LABELS


@pytest.mark.data
@pytest.mark.parametrize(("split", "records", "crowds"), [("train2017", 79, 14), ("val2017", 50, 9)])
def test_official_samples_are_read_as_pycocotools_does(
    samples: Path, split: str, records: int, crowds: int
) -> None:
    dataset = open_dataset("coco", samples / "coco", split)
    assert len(dataset.records) == records
    assert_is_the_file(dataset, samples / "coco" / "annotations" / f"instances_{split}.json")
    truths = [dataset.read_truth(index) for index in range(records)]
    assert sum(int(truth.crowd.sum()) for truth in truths) == crowds
    assert not any(truth.skipped for truth in truths)


def test_tars_hold_the_same_records(tmp_path: Path) -> None:
    whole, files = made_split("train2017", 9)
    write_split(tmp_path / "coco", "train2017", whole, files)
    members = tar_members(whole, files)
    write_tar(tmp_path / "tars" / "train2017-000000.tar", members[:8])
    write_tar(tmp_path / "tars" / "train2017-000001.tar", members[8:])
    folder, tars = open_dataset("coco", tmp_path), open_dataset("coco", tmp_path / "tars", "train2017")
    assert tars.records == folder.records
    assert tars.annotation_digest == folder.annotation_digest
    assert all(tars.read_source(i) == folder.read_source(i) for i in range(len(folder.records)))
    pattern = open_dataset("coco", str(tmp_path / "tars" / "train2017-{000000..000001}.tar"))
    assert pattern.annotation_digest == folder.annotation_digest


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ([("1.jpg", b"x")], DatasetLayoutError, "looked for one image"),
        ([("1.jpg", b"x"), ("1.json", b"[]")], DatasetLayoutError, "expected a JSON object"),
        ([("1.jpg", b"x"), ("1.json", b'{"image": 3}')], DatasetLayoutError, "annotations"),
        (
            [("1.jpg", b"x"), ("1.json", b'{"image": {}, "annotations": []}')],
            DatasetLayoutError,
            "has the id None",
        ),
        ([("1.jpg", b"x"), ("1.json", b"{"), ("1.pkl", b"x")], HostileTarError, "pkl"),
        ([("../1.jpg", b"x"), ("1.json", b"{}")], HostileTarError, r"\.\."),
    ],
)
def test_other_tars_are_refused(tmp_path: Path, members: list, error: type, message: str) -> None:
    tar = write_tar(tmp_path / "val2017.tar", members)
    with pytest.raises(error, match=message):
        open_dataset("coco", str(tar), "val2017")


def test_the_annotation_digest_follows_the_annotations_alone(tmp_path: Path) -> None:
    whole, files = made_split("val2017", 5)
    write_split(tmp_path / "a" / "coco", "val2017", whole, files)
    same = copy.deepcopy(whole)
    same["annotations"].reverse()
    same["info"], same["licenses"] = {"year": 2017}, [{"id": 1}]
    write_split(tmp_path / "b" / "coco", "val2017", same, files)
    first, second = (open_dataset("coco", tmp_path / name, "val2017") for name in "ab")
    assert first.annotation_digest == second.annotation_digest
    for change in ({"area": 1.5}, {"category_id": 90}, {"iscrowd": 1}, {"bbox": [0, 0, 3, 3]}):
        other = copy.deepcopy(whole)
        other["annotations"][0].update(change)
        write_split(tmp_path / "c" / "coco", "val2017", other, files)
        assert open_dataset("coco", tmp_path / "c", "val2017").annotation_digest != first.annotation_digest


BAD = {
    "category 12 (int) is not one of the 80": {"category_id": 12},
    "category 1.5 (float) is not": {"category_id": 1.5},
    "2 points, expected 3": {"segmentation": [[1, 1, 5, 5]]},
    "3.5 points": {"segmentation": [[1, 1, 5, 5, 1, 5, 2]]},
    "no points": {"segmentation": [5]},
    "no segmentation": {"segmentation": []},
    "coordinates that are no numbers": {"segmentation": [[1, 1, 5, 5, 1, "x"]]},
    "coordinates that are no number": {"segmentation": [[1, 1, 5, 5, 1, float("nan")]]},
    "far outside": {"segmentation": [[1, 1, 5, 5, 1, 1e9]]},
    "an outline of": {"segmentation": [[0, 0, 30, 20] * 400]},
    "zero area, 0 x 7": {"bbox": [2, 2, 0, 7]},
    "zero area, 10.5 x -7": {"bbox": [2, 2, 10.5, -7]},
    "its box is not four numbers": {"bbox": [2, 2, float("inf"), 7]},
    "its box": {"bbox": [2, 2, 7]},
    "is not four numbers": {"bbox": [2, 2, 10**400, 7]},
    "that are no numbers": {"segmentation": [[1, 1, 5, 5, 1, 10**400]]},
    "category [1] (list) is not": {"category_id": [1]},
    "iscrowd 2": {"iscrowd": 2},
    "its id is 'one' (str)": {"id": "one"},
    "lengths that do not fill 30x20": {"segmentation": {"size": [20, 30], "counts": "\ud800"}},
    "run lengths of size": {"segmentation": {"size": [30, 20], "counts": [600]}},
    "do not fill 30x20": {"segmentation": {"size": [20, 30], "counts": [300, 301]}},
    "run lengths that do not fill": {"segmentation": {"size": [20, 30], "counts": [700, -100]}},
    "run lengths that do not": {"segmentation": {"size": [20, 30], "counts": "P" * 50}},
    "run lengths": {"segmentation": {"size": [20, 30], "counts": None}},
}


@pytest.mark.parametrize("message", BAD)
def test_an_annotation_that_cannot_be_used_is_left_out_with_its_id_and_reason(message: str) -> None:
    bad = {**GOOD, "id": 7, **BAD[message]}
    truth = parsed(bad, GOOD)
    assert truth.ids.tolist() == [1] and len(truth) == 1
    ((number, reason),) = truth.skipped
    assert number == str(bad["id"]) and message in reason
    assert parsed(GOOD).skipped == ()


def test_run_lengths_are_read_compressed_and_not(tmp_path: Path) -> None:
    mask = np.zeros(HW, np.uint8)
    mask[3:9, 4:20] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    runs = _decoded_counts(rle["counts"].decode())
    for counts in (rle["counts"].decode(), runs):
        truth = parsed({**GOOD, "segmentation": {"size": list(HW), "counts": counts}})
        assert truth.shapes[0].rle(HW) == rle["counts"]
        assert truth.extents().tolist() == [[4, 3, 20, 9]]


@given(st.integers(0, 2**40), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_compressed_counts_are_decoded_as_pycocotools_coded_them(seed, height, width, share) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    flat = mask.reshape(-1, order="F")
    edges = np.flatnonzero(np.diff(flat.astype(np.int8), prepend=0))
    coded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert _decoded_counts(coded) == np.diff([0, *edges, flat.size]).tolist()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=130), max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_text_of_counts_reaches_pycocotools_that_does_not_fill_the_image(counts) -> None:
    truth = parsed({**GOOD, "segmentation": {"size": list(HW), "counts": counts}})
    for shape in truth.shapes:
        assert sum(_decoded_counts(shape.rle(HW).decode()) or ()) == HW[0] * HW[1]
    assert len(truth) + len(truth.skipped) == 1


def test_other_bytes_are_no_annotation() -> None:
    for data in (b"", b"[]", b"{}", b'{"image": {"id": 1}, "annotations": []}', b"\xff"):
        with pytest.raises(SourceError, match="annotation") as caught:
            parse_annotations(data, LABELS)
        assert caught.value.code == BAD_TARGET


def test_skipped_instances_are_logged_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, files = made_split("val2017", 5)
    total = len(whole["annotations"])
    whole["annotations"][0]["category_id"] = 12
    whole["annotations"][1]["segmentation"] = [[1, 1, 2, 2]]
    write_split(tmp_path / "coco", "val2017", whole, files)
    dataset = open_dataset("coco", tmp_path, "val2017")
    with caplog.at_level(logging.WARNING):
        params = [np.zeros((1, 14)) for _ in dataset.records]
        for _ in range(2):
            dataset.target_specs(True, params)
    assert len(caplog.records) == 1
    text, (first, *_) = caplog.records[0].message, whole["annotations"]
    assert f"2 of {total} annotations ({2 / total:.2%}), in 2 records, cannot be used" in text
    assert "1 x category 12 (int) is not one of the 80" in text
    assert "1 x a polygon with 2 points, expected 3 or more" in text
    assert f"annotation {first['id']} of image {first['image_id']:012d}: category 12 (int)" in text
    unusable = dataset.unusable_annotations
    assert (unusable.count, unusable.total, unusable.records) == (2, total, 2)


def test_small_images_and_those_without_annotations_are_not_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, files = made_split("train2017", 6)
    ids = [image["id"] for image in whole["images"]]
    whole["images"][1]["width"] = 31
    write_split(tmp_path / "coco", "train2017", whole, files)
    with caplog.at_level(logging.INFO):
        dataset = open_dataset("coco", tmp_path)
    assert {int(record.key) for record in dataset.records} == {ids[0], *ids[3:]}
    assert "2 of 6 images are not trained on" in caplog.text


def test_a_missing_image_is_a_record_that_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_folder(tmp_path, train=1, val=5)
    name = open_dataset("coco", root, "val2017").records[2].key
    (root / "val2017" / f"{name}.jpg").unlink()
    dataset = open_dataset("coco", root, "val2017")
    assert len(dataset.records) == 5 and "lacks 1 of 5 images" in caplog.text
    with pytest.raises(SourceError, match=f"{name}.jpg is missing") as caught:
        dataset.read_source(2)
    assert caught.value.code == UNDECODABLE


def _without(name: str) -> dict:
    whole, _ = made_split("val2017", 3)
    del whole[name]
    return whole


def _changed(path: tuple, value: object) -> dict:
    whole, _ = made_split("val2017", 3)
    part = whole
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    return whole


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        (_without("images"), "images is not a list"),
        (_without("categories"), "categories is not a list"),
        (_changed(("images",), []), "lists no images"),
        (_changed(("images", 0, "file_name"), "../../etc/passwd"), "without folders"),
        (_changed(("images", 0, "file_name"), ""), "without folders"),
        (_changed(("images", 0, "id"), "one"), r"has the id 'one' \(str\), expected a whole number"),
        (_changed(("images", 0, "height"), 0), "pixels, expected 1"),
        (_changed(("images", 0, "width"), 1 << 30), "pixels, expected 1"),
        (_changed(("images", 0), [1]), "images is not a list of objects"),
        (_changed(("categories", 0, "name"), "cat"), r"category 1 \(int\) 'cat'"),
        (_changed(("categories", 0, "id"), 12), r"category 12 \(int\) 'person'"),
        ([1], "expected a JSON object"),
    ],
)
def test_another_annotation_file_is_refused(tmp_path: Path, whole: object, message: str) -> None:
    _, files = made_split("val2017", 3)
    write_split(tmp_path / "coco", "val2017", whole, files)
    with pytest.raises(DatasetLayoutError, match=message):
        open_dataset("coco", tmp_path, "val2017")


def test_a_deep_or_cut_file_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train=1, val=1)
    path = root / "annotations" / "instances_val2017.json"
    for text in ("[" * 200_000, path.read_text()[:-9]):
        path.write_text(text)
        with pytest.raises(DatasetLayoutError, match="is not JSON"):
            open_dataset("coco", root, "val2017")


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    whole, files = made_split("val2017", 3)
    whole["images"].append(whole["images"][0])
    write_split(tmp_path / "coco", "val2017", whole, files)
    with pytest.raises(DatasetLayoutError, match="listed twice"):
        open_dataset("coco", tmp_path, "val2017")


def test_images_that_share_an_id_are_refused(tmp_path: Path) -> None:
    whole, files = made_split("val2017", 3)
    whole["images"][2]["id"] = whole["images"][0]["id"]
    write_split(tmp_path / "coco", "val2017", whole, files)
    with pytest.raises(DatasetLayoutError, match=f"{whole['images'][0]['id']} is the id of several images"):
        open_dataset("coco", tmp_path, "val2017")


def test_a_wrong_folder_says_what_was_looked_for_and_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetLayoutError, match=r"neither.*cocodataset.org.*val2017.zip") as caught:
        open_dataset("coco", tmp_path, "val2017")
    assert "instances_val2017.json" in str(caught.value) and "tars" in str(caught.value)
    root = write_folder(tmp_path, train=1, val=2)
    for number, image in enumerate(sorted((root / "val2017").iterdir())):
        image.rename(image.with_name(f"renamed{number}.jpg"))
    with pytest.raises(DatasetLayoutError, match="none of the 2 images"):
        open_dataset("coco", root, "val2017")
    for image in (root / "val2017").iterdir():
        image.unlink()
    with pytest.raises(DatasetLayoutError, match="found the first"):
        open_dataset("coco", root, "val2017")
    (root / "val2017").rmdir()
    with pytest.raises(DatasetLayoutError, match="found the first"):
        open_dataset("coco", root, "val2017")
    with pytest.raises(DatasetLayoutError, match=r"image_info_test2017.json and .*found neither"):
        open_dataset("coco", root, "test2017")
    with pytest.raises(ValueError, match="no split 'test2014'"):
        open_dataset("coco", root, "test2014")


def test_the_canonical_bytes_are_json_whatever_the_file_says() -> None:
    entry = {**GOOD, "area": float("nan"), "bbox": [1, 2, float("inf"), 4], "extra": "left out"}
    whole = json.loads(annotation_bytes(5, HW, (3, 9), [entry]))
    assert whole["image"] == {**IMAGE, "listed": [3, 9]}
    assert whole["annotations"][0]["area"] is None and whole["annotations"][0]["bbox"][2] is None
    assert "extra" not in whole["annotations"][0] and "image_id" not in whole["annotations"][0]
