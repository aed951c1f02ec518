"""The detection task: predictions of views mapped back and merged, the store's truth, figures and files."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from extract.datasets import open_dataset
from extract.datasets.coco import CATEGORY_IDS, CLASS_NAMES
from extract.views.view import View, padded_up
from heads.boxes.mask_paste import paste_masks
from pipelines.metrics.coco_results import box_entries, mask_bitmap, mask_entries
from pipelines.metrics.merge_views import MERGE_IOU, MOST, detections, merged, unflipped
from pipelines.pictures.detections import blank, draw_detections, draw_truth
from pipelines.tasks.contract import TestView
from pipelines.tasks.detection import TASK, Categories, figures, truth_of
from tests.pipelines.made_detections import (
    disc,
    disturbed,
    perfect,
    read_json,
    truth_of_masks,
    truths_of_file,
)

COCO = Categories(CATEGORY_IDS, CLASS_NAMES)

HW = (48, 64)


def prediction(seed: int, count: int, spread: float = 1.0) -> dict[str, torch.Tensor]:
    """Boxes inside HW, distinct scores, three classes."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.rand(count, 2, generator=generator) * 18 + 6
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor(HW[::-1]) - size) * spread
    return {
        "boxes": torch.cat([corner, corner + size], 1),
        "scores": torch.rand(count, generator=generator).sort(descending=True).values,
        "labels": torch.randint(0, 3, (count,), generator=generator),
        "mask_probs": torch.rand(count, 28, 28, generator=generator),
    }


@given(st.integers(0, 2**31), st.integers(0, 6))
@settings(max_examples=20, deadline=None)
def test_a_prediction_is_mirrored_as_its_pixels_are(seed: int, count: int) -> None:
    found = prediction(seed, count)
    there = unflipped(found, HW[1])
    back = unflipped(there, HW[1])
    assert torch.allclose(back["boxes"], found["boxes"], atol=1e-5)
    assert torch.equal(back["mask_probs"], found["mask_probs"])
    mirrored = paste_masks(found, HW).flip(-1)
    # Rounding may turn a pixel whose probability is almost exactly a half.
    assert (paste_masks(there, HW) != mirrored).float().mean(dim=(1, 2)).le(2e-3).all() if count else True


@given(st.integers(0, 2**31), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_views_are_merged_as_by_a_plain_loop(seed: int, views: int) -> None:
    parts = [prediction(seed + number, 12, spread=0.4) for number in range(views)]
    found = merged(parts)
    boxes, scores, labels = (
        torch.cat([part[name] for part in parts]) for name in ("boxes", "scores", "labels")
    )
    kept: list[int] = []
    for number in scores.argsort(descending=True, stable=True).tolist():
        same = [other for other in kept if labels[other] == labels[number]]
        if all(plain_iou(boxes[number], boxes[other]) <= MERGE_IOU for other in same):
            kept.append(number)
    if views == 1:
        kept = list(range(12))
    assert torch.equal(found["scores"], scores[kept])
    assert torch.equal(found["boxes"], boxes[kept])
    assert torch.equal(found["mask_probs"], torch.cat([part["mask_probs"] for part in parts])[kept])


def plain_iou(one: torch.Tensor, other: torch.Tensor) -> float:
    low, high = torch.maximum(one[:2], other[:2]), torch.minimum(one[2:], other[2:])
    shared = float((high - low).clamp(min=0).prod())
    areas = [float((box[2:] - box[:2]).prod()) for box in (one, other)]
    return shared / (sum(areas) - shared)


def test_no_more_than_a_hundred_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.arange(90)[:, None] * 20.0
    apart = {
        "boxes": torch.cat([corner, corner, corner + 9, corner + 9], 1),
        "scores": torch.rand(90, generator=generator),
        "labels": torch.zeros(90, dtype=torch.int64),
        "mask_probs": torch.ones(90, 28, 28),
    }
    moved = {**apart, "boxes": apart["boxes"] + 5000, "scores": apart["scores"] / 2}
    found = merged([apart, moved])
    assert len(found["scores"]) == MOST
    together = torch.cat([apart["scores"], moved["scores"]]).sort(descending=True).values
    assert torch.equal(found["scores"], together[:MOST])


def test_masks_become_the_run_lengths_of_their_pixels() -> None:
    found = prediction(5, 7)
    on_host = detections(found, HW)
    again = np.array([mask_bitmap(counts, HW) for counts in on_host.counts])
    assert np.array_equal(again, paste_masks(found, HW).numpy())
    assert np.array_equal(on_host.boxes, found["boxes"].numpy())
    assert len(detections(prediction(5, 0), HW)) == 0


class Oracle:
    """A head that sees the truth: what `measure` makes of its predictions is what measuring adds.

    A view's one feature holds the number of its record and whether it is mirrored, as its prediction then is.
    """

    def __init__(self, truths, sees: str) -> None:
        self.truths, self.sees = truths, sees

    def predict(self, features, valid_hw, output_hw):
        assert len(features["p2"]) == len(valid_hw) == len(output_hw)
        return [self._one(*row) for row in zip(features["p2"], output_hw, strict=True)]

    def _one(self, feature, output_hw):
        number, flip = (int(value) for value in feature.flatten()[:2])
        truth, (height, width) = self.truths[number], output_hw
        assert (height, width) == truth.original_hw
        found = perfect(truth)
        boxes = torch.from_numpy(found.boxes)
        masks = [
            torch.from_numpy(
                mask_bitmap(counts, truth.original_hw)[int(y1) : int(y2), int(x1) : int(x2)].copy()
            )
            for counts, (x1, y1, x2, y2) in zip(found.counts, found.boxes.tolist(), strict=True)
        ]
        probs = [
            torch.nn.functional.interpolate(mask[None, None].float(), (28, 28), mode="bilinear")
            for mask in masks
        ]
        made = {
            "boxes": boxes,
            "scores": torch.from_numpy(found.scores),
            "labels": torch.from_numpy(found.labels),
            "mask_probs": torch.cat([torch.zeros(0, 1, 28, 28), *probs])[:, 0],
        }
        mirrors = flip if self.sees == "mirrored" else False
        return unflipped(made, width) if mirrors else made


def views_of(truths, flips: tuple[bool, ...]) -> Iterator[TestView]:
    for number, truth in enumerate(truths):
        for flip in flips:
            yield TestView(
                key=str(truth.image_id),
                features={"p2": torch.tensor([number, flip], dtype=torch.float32).reshape(1, 2, 1, 1)},
                valid_hw=(60, 80),
                params={"flip": float(flip)},
                original_hw=truth.original_hw,
                truth=stored(truth),
            )


def stored(truth):
    return {
        "image_id": np.array(truth.image_id, np.int64),
        "original_xywh": truth.xywh,
        "original_labels": truth.labels,
        "original_crowd": truth.crowd.astype(np.uint8),
        "original_area": truth.area,
        "original_rle": np.frombuffer(b"".join(truth.counts), np.uint8),
        "original_rle_lengths": np.array([len(each) for each in truth.counts], np.int32),
    }


@pytest.fixture(scope="module")
def made_truths():
    return [
        truth_of_masks(11, [disc(20, 15, 11), disc(40, 60, 14)], [0, 5]),
        truth_of_masks(12, [], []),
        truth_of_masks(13, [disc(30, 50, 12), disc(25, 15, 9)], [5, 0], [False, True]),
    ]


def measured(truths, sees: str, flips: tuple[bool, ...]):
    return TASK.for_dataset({"name": "coco", "class_names": CLASS_NAMES}).measure(
        Oracle(truths, sees),
        views_of(truths, flips),
        views_name="single" if len(flips) == 1 else "ms+flip",
        device=torch.device("cpu"),
        bf16=False,
    )


def test_a_perfect_head_scores_one(made_truths) -> None:
    found = measured(made_truths, "mirrored", (False,))
    assert found.scores() == pytest.approx(
        {"box AP": 1.0, "mask AP": 1.0, "box AP50": 1.0, "mask AP50": 1.0}, abs=0.1
    )
    assert found.scores()["box AP"] == pytest.approx(1.0)
    assert (found.records, found.views, len(found.found[1])) == (3, "single", 0)


def test_mirrored_views_are_mapped_back(made_truths) -> None:
    both = measured(made_truths, "mirrored", (False, True))
    assert both.scores()["box AP"] == pytest.approx(1.0)
    assert [len(each) for each in both.found] == [2, 0, 1]  # a view's box suppresses the other view's
    assert measured(made_truths, "mirrored", (True,)).scores()["mask AP50"] == pytest.approx(1.0)
    assert measured(made_truths, "unmirrored", (True,)).scores()["box AP50"] < 0.5


def test_the_line_that_users_rely_on(made_truths) -> None:
    line = measured(made_truths, "mirrored", (False, True)).line()
    assert re.match(
        r"box AP 100\.00 mask AP \d+\.\d\d \(ms\+flip\) AP50 100\.00 and 100\.00, 3 records$", line
    )


def test_without_annotations_scores_are_none() -> None:
    found = figures([truth_of_masks(1, [], [])], [perfect(truth_of_masks(1, [], []))], "single", COCO)
    assert set(found.scores().values()) == {None}
    assert found.summary()["box"]["AP"] is None
    assert found.line() == "box AP - mask AP - (single) AP50 - and -, 1 records: no object is annotated"


def test_the_files_of_an_evaluation(made_truths, tmp_path: Path) -> None:
    found = figures(made_truths, [disturbed(truth, 4) for truth in made_truths], "single", COCO)
    found.write(tmp_path, "-x", CLASS_NAMES)
    boxes, masks = (read_json(tmp_path / f"results-{kind}-x.json") for kind in ("bbox", "segm"))
    pairs = list(zip(found.truths, found.found, strict=True))
    assert boxes == [e for truth, each in pairs for e in box_entries(truth.image_id, each, CATEGORY_IDS)]
    assert masks == [
        e
        for truth, each in pairs
        for e in mask_entries(truth.image_id, truth.original_hw, each, CATEGORY_IDS)
    ]
    with (tmp_path / "classes-x.csv").open(newline="") as file:
        table = {row["name"]: row for row in csv.DictReader(file)}
    assert len(table) == 80
    assert (table["person"]["objects"], table["bus"]["objects"], table["bus"]["box_ap"] != "") == (
        "1",
        "2",
        True,
    )
    assert table["car"]["box_ap"] == ""
    with Image.open(tmp_path / "detections-x.png") as picture:
        assert min(picture.size) > 300
    assert found.summary()["detections"] == len(boxes)


def test_pictures_show_what_was_found(made_truths) -> None:
    truth = made_truths[0]
    canvas = blank(truth.original_hw)
    before = canvas.copy()
    found = dataclasses.replace(perfect(truth), scores=np.float32([0.9, 0.1]))
    picture = draw_detections(canvas, found, CLASS_NAMES)
    changed = (picture != canvas).any(-1)
    first, second = (mask_bitmap(counts, truth.original_hw).astype(bool) for counts in truth.counts)
    assert changed[first].mean() > 0.8
    assert changed[second].mean() == 0  # below the score that is shown
    both = (draw_truth(canvas, truth, CLASS_NAMES) != canvas).any(-1)
    assert both[first].mean() > 0.8 and both[second].mean() > 0.8
    assert np.array_equal(canvas, before)


@pytest.mark.data
def test_the_stores_truth_is_the_official_one(samples: Path) -> None:
    """All 50 real images: crowds, images without annotations and every mask, bit for bit."""
    dataset = open_dataset("coco", samples / "coco", "val2017")
    official = {
        truth.image_id: truth
        for truth in truths_of_file(samples / "coco/annotations/instances_val2017.json", CATEGORY_IDS)
    }
    assert len(dataset.records) == len(official) == 50
    for index, record in enumerate(dataset.records):
        view = View(
            resized_hw=record.original_hw,
            valid_hw=record.original_hw,
            padded_hw=padded_up(record.original_hw),
        )
        targets = dataset.targets(dataset.read_truth(index), view)
        mine = truth_of({name: targets[name] for name in TASK.test_targets}, record.original_hw)
        theirs = official[mine.image_id]
        by_area = [np.lexsort((each.area, each.labels)) for each in (mine, theirs)]
        for name in ("xywh", "labels", "crowd", "area"):
            assert np.array_equal(getattr(mine, name)[by_area[0]], getattr(theirs, name)[by_area[1]]), (
                record.key
            )
        assert [mine.counts[n] for n in by_area[0]] == [theirs.counts[n] for n in by_area[1]]


def test_made_targets_are_what_a_head_takes() -> None:
    made = TASK.made_targets(3, (64, 96), 5, torch.Generator().manual_seed(0))
    for row in made:
        assert set(row) == set(TASK.training_targets)
        assert int(row["labels"].max()) < 5
        height, width = row["mask_hw"].unbind(1)
        assert row["boxes"][:, 2].le(96).all() and row["boxes"][:, 3].le(64).all()
        assert torch.equal(row["boxes"][:, 2] - row["boxes"][:, 0], width.float())
        assert len(row["mask_bits"]) == int(((height * width + 7) // 8).sum())


def test_ids_are_those_of_the_data_set(made_truths, tmp_path: Path) -> None:
    """Own categories: figures do not depend on their ids, and results files hold them."""
    names = tuple(f"kind {label}" for label in range(80))
    dataset = {
        "name": "cells",
        "class_names": list(names),
        "description": {
            "layout": "coco-json",
            "splits": {},
            "order": [],
            "training": [],
            "classes": [[1000 + 7 * label, name] for label, name in enumerate(names)],
        },
    }
    own = TASK.for_dataset(dataset)
    ours = own.measure(
        Oracle(made_truths, "mirrored"),
        views_of(made_truths, (False,)),
        views_name="single",
        device=torch.device("cpu"),
        bf16=False,
    )
    assert ours.scores() == measured(made_truths, "mirrored", (False,)).scores()
    ours.write(tmp_path, "", names)
    labels = {int(label) for truth in made_truths for label in truth.labels}
    found = {entry["category_id"] for entry in read_json(tmp_path / "results-bbox.json")}
    assert found == {1000 + 7 * label for label in labels}
