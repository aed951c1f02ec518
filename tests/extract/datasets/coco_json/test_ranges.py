"""Annotations as byte ranges: what planning reads of many at once equals what is read of one."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.planning.made_coco import write
from extract.datasets.coco import CATEGORIES, LABELS, open_dataset
from extract.datasets.coco_json import ordinary
from extract.datasets.coco_json.annotations import annotation_bytes, instances_of
from extract.datasets.coco_json.byte_ranges import ByteRanges, RangedAnnotations, parsed
from extract.datasets.coco_json.instances_file import read_instances_file
from extract.datasets.coco_json.ordinary import OrdinaryBlock, canonical_bytes, entries_of
from extract.datasets.coco_json.plain_polygons import read_polygons
from extract.datasets.layouts.coco_files import ImageEntry, from_folder
from extract.datasets.layouts.coco_survey import _read_block
from extract.sources.byte_sources import SourceError
from extract.sources.record import DatasetLayoutError
from extract.views.instance_targets import rle_bytes

NUMBERS = (0, -0.0, 5.0, 1e15, 1e16, 123456789012345678.0, 1e22, 1e-4, 0.00012, 1e-5, 10.00001, 2**63, 2**70)
NOT_A_NUMBER = {"id": 9, "image_id": 7, "area": float("nan")}
ODD: tuple[dict[str, Any], ...] = (
    {"category_id": 999},
    {"category_id": True},
    {"bbox": [1, 2, 0, 4]},
    {"bbox": [1, 2, 3]},
    {"bbox": None},
    {"area": -1},
    {"area": None},
    {"area": 1e-7},
    {"iscrowd": 2},
    {"iscrowd": None},
    {"id": "12"},
    {"id": 2**70},
    {"id": None},
    {"segmentation": []},
    {"segmentation": [[1, 2, 3, 4]]},
    {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
    {"segmentation": [["1", 2, 3, 4, 5, 6]]},
    {"segmentation": [[1, 2, [3], 4, 5, 6]]},
    {"segmentation": [[1, 2, None, 4, 5, 6]]},
    {"segmentation": [[1, 2, 1e6, 4, 5, 6]]},
    {"segmentation": [[0, 0, 60, 40] * 400]},
    {"segmentation": [[1, 1, 9, 1, 9, 9], [20.5, 20, 30, 21, 25, 33.25]]},
    {"segmentation": {"size": [48, 64], "counts": [0, 48 * 64]}},
    {"segmentation": {"size": [48, 64], "counts": "00"}},
    {"note": "é e \\ \u007f"},
)


def annotation(number: int, **changed: Any) -> dict[str, Any]:
    draw = random.Random(number)
    points = [round(draw.uniform(0, 40), draw.randint(0, 3)) for _ in range(2 * draw.randint(3, 9))]
    whole = {
        "id": 1000 - number,
        "image_id": 7,
        "category_id": draw.choice(list(CATEGORIES)),
        "iscrowd": 0,
        "area": round(draw.uniform(1, 99), 4),
        "bbox": [1.5, 2, 30.25, 20.0],
        "segmentation": [points],
    }
    return {**whole, **changed}


def opened(root: Path, annotations: list[dict[str, Any]], write_text: Any = json.dumps) -> list[ImageEntry]:
    """The images of a folder whose first image has these annotations."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "train2017").mkdir(exist_ok=True)
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 48, "width": 64} for n in (7, 8)]
    for image in images:
        (root / "train2017" / str(image["file_name"])).write_bytes(b"x")
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_train2017.json").write_bytes(_bytes(write_text(whole)))
    return list(from_folder(root, "train2017", CATEGORIES).entries)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def check(entries: list[ImageEntry]) -> int:
    """Each image against what is read of it alone; how many instances were usable."""
    usable = 0
    for entry, (kept, skipped, digest) in zip(entries, _read_block(entries, LABELS, False), strict=True):
        each = list(entry.annotations)
        truth = instances_of(entry.image_id, entry.hw, entry.listed, each, LABELS)
        assert np.array_equal(kept[1], truth.extents()) and np.array_equal(kept[2], truth.crowd)
        assert list(kept[3]) == rle_bytes(truth) and tuple(skipped) == truth.skipped
        text = annotation_bytes(entry.image_id, entry.hw, entry.listed, each)
        assert digest == hashlib.sha256(text).digest()
        usable += len(truth)
    return usable


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: json.dumps(odd)[:40])
def test_what_is_out_of_the_ordinary_is_read_as_it_was(odd: dict[str, Any], tmp_path: Path) -> None:
    entries = opened(tmp_path, [annotation(1), annotation(2, **odd), annotation(3)])
    assert isinstance(entries[0].annotations, RangedAnnotations)
    assert check(entries) >= 2


def canonical(texts: list[bytes]) -> bytes | None:
    """Of an image of its own; None where it is out of the ordinary."""
    block, entries = OrdinaryBlock(LABELS), entries_of(texts)
    if entries is None or not block.add((48, 64), entries) or block.measured() == [None]:
        return None
    return canonical_bytes(7, (48, 64), (0, 2), entries)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("field", ["area", "segmentation"])
def test_numbers_are_written_as_python_does_or_left_to_it(number: float, field: str) -> None:
    changed = {field: number if field == "area" else [[number, 1, 2, 3, 4, 5]]}
    entries = [annotation(4), annotation(5, **changed)]
    found = canonical([json.dumps(entry).encode() for entry in entries])
    assert found in (None, annotation_bytes(7, (48, 64), (0, 2), entries))


@pytest.mark.parametrize(
    "number",
    ["1.50", "1.0", "-0", "-0.0", "0.00001", "-3", "12.0625", "1.23456789", "2e1", "7E0"],
)
def test_numbers_of_other_programs_become_those_of_python(number: str) -> None:
    texts = [json.dumps(annotation(n)).encode() for n in range(3)]
    texts[1] = (
        json.dumps(annotation(1, segmentation=[["?", 1, 2, 3.25, 4, 5]])).replace('"?"', number).encode()
    )
    expected = annotation_bytes(7, (48, 64), (0, 2), [json.loads(text) for text in texts])
    found = canonical(texts)
    assert found == (None if number == "0.00001" else expected)


def test_ordinary_numbers_take_the_short_way() -> None:
    texts = [json.dumps(annotation(number)).encode() for number in range(200)]
    entries = entries_of(texts)
    assert entries is not None and [entry.id for entry in entries] == [*range(801, 1001)]
    assert read_polygons([bytes(entry.segmentation) for entry in entries])[0].all()
    expected = annotation_bytes(7, (48, 64), (0, 2), [json.loads(text) for text in texts])
    assert canonical(texts) == expected


def test_sums_at_a_whole_number_are_those_of_each_alone(tmp_path: Path) -> None:
    """Tenths sum to whole numbers, or to the next float beside them, depending on the order."""
    tenths = [
        annotation(n, segmentation=[[n / 10, 0.1, 0.3, 0.2, n / 5, 0.7, 0.1, 30.4]]) for n in range(150)
    ]
    assert check(opened(tmp_path, tenths)) == 150


@pytest.mark.parametrize(
    "form",
    [
        lambda whole: json.dumps(whole, indent=3),
        lambda whole: b"\xef\xbb\xbf" + json.dumps(whole).encode(),
        lambda whole: json.dumps(whole).encode("utf-16"),
        lambda whole: json.dumps({**whole, "annotations": [*whole["annotations"], NOT_A_NUMBER]}),
        lambda whole: json.dumps({**whole, "info": {"é": "\ud800"}}),
        lambda whole: json.dumps({**whole, "info": "ünïcode"}, ensure_ascii=False),
        lambda whole: json.dumps(whole).replace('"annotations"', '"annotations": [], "annotations"', 1),
    ],
)
def test_other_forms_of_json_hold_the_same(form: Any, tmp_path: Path) -> None:
    plain = opened(tmp_path, [annotation(1), annotation(2)])
    expected = [[dict(each) for each in entry.annotations] for entry in plain]
    found = opened(tmp_path, [annotation(1), annotation(2)], form)
    assert check(found) >= 2
    assert [[dict(each) for each in entry.annotations][:2] for entry in found] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no images"),
        ('{"images": [1], "annotations": [], "categories": []}', "images is not a list of objects"),
        ('{"images": [{}], "annotations": [[]], "categories": []}', "annotations is not a list of objects"),
        ('{"images": [{}], "annotations": {}, "categories": []}', "annotations is not a list of objects"),
        ('{"images": [{}], "annotations": []}', "categories is not a list of objects"),
        ('{"images": [{}], "annotations": [{"id": 1,}], "categories": []}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "holds a list"),
    ],
)
def test_what_is_no_instances_file_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(text)
    with pytest.raises(DatasetLayoutError, match=words):
        list(read_instances_file(path).image_entries())


def test_a_made_set_keeps_ranges_and_reads_each_row_when_it_comes(tmp_path: Path) -> None:
    write(tmp_path, images=40)
    entries = list(from_folder(tmp_path, "train2017", CATEGORIES).entries)
    assert check(entries) > 200
    dataset = open_dataset(tmp_path, "train2017")
    for index in range(0, len(dataset.records), 7):
        text = dataset.read_annotation(index)
        assert dataset.annotation_sha256(index) == hashlib.sha256(text).hexdigest()
        assert len(dataset.parse_annotation(index, text)) > 0
    whole = parsed((tmp_path / "annotations" / "instances_train2017.json").read_bytes())
    by_id = {entry["id"]: entry for entry in whole["annotations"]}
    assert all(by_id[each["id"]] == each for entry in entries for each in entry.annotations)


def test_a_file_that_is_cut_while_it_is_read_is_reported(tmp_path: Path) -> None:
    entries = opened(tmp_path, [annotation(1)])
    (tmp_path / "annotations" / "instances_train2017.json").write_text("{}")
    with pytest.raises(DatasetLayoutError, match="became shorter"):
        list(entries[0].annotations)


def test_a_list_beyond_all_images_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.datasets.layouts.coco_files.MOST_ANNOTATIONS", 3)
    opened(tmp_path, [*(annotation(n) for n in range(4)), *(annotation(n, image_id=8) for n in range(4, 7))])
    dataset = open_dataset(tmp_path, "train2017")
    assert dataset.unusable_records == {"7": "4 annotations, at most 3 are read"}
    with pytest.raises(SourceError, match="at most 3"):
        dataset.read_source(0)
    assert len(dataset.read_truth(1)) == 3


def test_each_annotation_is_parsed_once_to_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none by Python's parser: the cost of an annotation is that of its bytes."""
    write(tmp_path, images=40)
    read, decoded = [], []
    whole, decoder = ByteRanges.read_all, ordinary._DECODER
    monkeypatch.setattr(
        ByteRanges, "read_all", lambda own, numbers: read.extend(numbers.tolist()) or whole(own, numbers)
    )
    counting = type("", (), {"decode": lambda _, text: decoded.append(len(text)) or decoder.decode(text)})()
    monkeypatch.setattr(ordinary, "_DECODER", counting)
    dataset = open_dataset(tmp_path, "train2017")
    monkeypatch.setattr(json, "loads", None)
    assert dataset.unusable_records == {}
    assert len(read) == len({*read}) > 200
    assert len(decoded) == len(dataset.records)


@pytest.mark.data
def test_real_annotations(samples: Path) -> None:
    root = samples / "coco"
    for split in ("train2017", "val2017"):
        assert check(list(from_folder(root, split, CATEGORIES).entries)) > 100
