"""COCO's numbers: of known detections, by two tools, and from the files that anybody could evaluate."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipelines.metrics.coco_ap import NUMBERS, coco_numbers
from pipelines.metrics.coco_results import (
    Detections,
    Truth,
    box_entries,
    joined,
    mask_bitmap,
    mask_counts,
    mask_entries,
    truth_as_coco,
    write_results,
)
from tests.pipelines.made_detections import (
    SIZE_HW,
    disc,
    disturbed,
    perfect,
    read_json,
    truth_of_masks,
    truths_of_file,
)

IDS, NAMES = (1, 3, 90), ("person", "car", "toothbrush")


@pytest.fixture
def truths() -> list[Truth]:
    """Three images: two instances and a crowd, nothing, a crowd alone."""
    return [
        truth_of_masks(
            7, [disc(20, 20, 9), disc(40, 60, 15), disc(45, 15, 12)], [0, 2, 0], [False, False, True]
        ),
        truth_of_masks(8, [], []),
        truth_of_masks(9, [disc(30, 40, 25)], [0], [True]),
    ]


def entries(kind: str, truths: list[Truth], found: list[Detections], ids=IDS):
    made = []
    for truth, each in zip(truths, found, strict=True):
        if kind == "bbox":
            made += box_entries(truth.image_id, each, ids)
        else:
            made += mask_entries(truth.image_id, truth.original_hw, each, ids)
    return made


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_truth_scores_one(kind: str, truths: list[Truth]) -> None:
    """Crowds are no objects to find, and an image without any has nothing to miss."""
    found = coco_numbers(
        truth_as_coco(truths, IDS, NAMES), entries(kind, truths, list(map(perfect, truths))), kind
    )
    assert [found.numbers[name] for name in ("AP", "AP50", "AP75", "AR_100")] == pytest.approx([1.0] * 4)
    assert found.ap_by_class == [pytest.approx(1.0), None, pytest.approx(1.0)]
    assert found.numbers["AP_large"] is None  # no object has 96 x 96 px


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_a_detection_in_a_crowd_costs_nothing_and_one_beside_it_does(kind: str, truths: list[Truth]) -> None:
    def with_one_more(y: float, x: float) -> float:
        more = perfect(truth_of_masks(9, [disc(y, x, 8)], [0]))
        better = Detections(
            boxes=more.boxes, scores=np.float32([0.99]), labels=more.labels, counts=more.counts
        )
        found = entries(kind, truths, [perfect(truths[0]), perfect(truths[1]), better])
        return coco_numbers(truth_as_coco(truths, IDS, NAMES), found, kind).numbers["AP"] or 0.0

    assert with_one_more(30, 40) == pytest.approx(1.0)
    # A false positive above the one person: precision 1/2 at every recall, and the toothbrush is still found.
    assert with_one_more(10, 70) == pytest.approx((0.5 + 1) / 2)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("engine", ["pycocotools", "faster-coco-eval"])
def test_nothing_found_scores_zero(kind: str, engine: str, truths: list[Truth]) -> None:
    if engine == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    numbers = coco_numbers(truth_as_coco(truths, IDS, NAMES), [], kind, engine).numbers
    assert [numbers[name] for name in NUMBERS if numbers[name] is not None] == [0.0] * 8


def test_boxes_and_masks_of_half_the_size() -> None:
    """IoU 0.6 of a box: found at the thresholds 0.5, 0.55 and 0.6, three of ten."""
    half = np.zeros(SIZE_HW, np.uint8)
    half[10:50, 10:50] = 1
    found = np.zeros(SIZE_HW, np.uint8)
    found[10:50, 10:34] = 1
    truth, part = (truth_of_masks(1, [mask], [1]) for mask in (half, found))
    for kind in ("bbox", "segm"):
        numbers = coco_numbers(
            truth_as_coco([truth], IDS, NAMES), entries(kind, [truth], [perfect(part)]), kind
        ).numbers
        assert numbers["AP"] == pytest.approx(0.3)
        assert (numbers["AP50"], numbers["AP75"]) == (pytest.approx(1.0), 0.0)


def test_the_size_of_a_found_mask_is_its_own() -> None:
    """A thin diagonal is small as a mask and medium as a box: neither may stand for the other."""
    line = np.eye(*SIZE_HW, dtype=np.uint8) | np.eye(*SIZE_HW, k=1, dtype=np.uint8)
    small = truth_of_masks(1, [line], [0])
    wrong_place = perfect(truth_of_masks(1, [np.roll(line, 12, axis=1)], [0]))
    found = coco_numbers(truth_as_coco([small], IDS, NAMES), entries("segm", [small], [wrong_place]), "segm")
    assert found.numbers["AP_small"] == 0.0
    assert all("bbox" not in entry for entry in entries("segm", [small], [wrong_place]))


def test_a_results_file_is_a_list_of_plain_entries(tmp_path: Path, truths: list[Truth]) -> None:
    found = [perfect(truth) for truth in truths]
    for kind, key in (("bbox", "bbox"), ("segm", "segmentation")):
        write_results(tmp_path / f"{kind}.json", entries(kind, truths, found))
        (first, second) = read_json(tmp_path / f"{kind}.json")
        assert set(first) == {"image_id", "category_id", "score", key}
        assert (first["image_id"], first["category_id"], second["category_id"]) == (7, 1, 90)
    assert mask_bitmap(first["segmentation"]["counts"], SIZE_HW).tolist() == disc(20, 20, 9).tolist()


def test_run_lengths_give_the_bitmap_back() -> None:
    masks = np.array([disc(20, 20, 9), disc(0, 0, 0), np.zeros(SIZE_HW), np.ones(SIZE_HW)], np.uint8)
    again = np.array([mask_bitmap(counts, SIZE_HW) for counts in mask_counts(masks)])
    assert np.array_equal(again, masks)


def test_columns_of_different_lengths_are_refused() -> None:
    truth = truth_of_masks(3, [disc(20, 20, 5)], [0])
    with pytest.raises(ValueError, match="image 3"):
        Truth(
            image_id=3,
            original_hw=SIZE_HW,
            xywh=truth.xywh,
            labels=truth.labels[:0],
            crowd=truth.crowd,
            area=truth.area,
            counts=truth.counts,
        )


def test_parts_of_several_views_are_joined_in_order() -> None:
    parts = [perfect(truth_of_masks(1, [disc(20, x, 9)], [label])) for x, label in ((20, 0), (50, 2))]
    both = joined(parts)
    assert both.labels.tolist() == [0, 2] and both.counts == parts[0].counts + parts[1].counts
    assert both.take([1]).boxes.tolist() == parts[1].boxes.tolist()


@pytest.fixture(scope="module")
def real(samples: Path):
    """The 50 real validation images: the official file, its categories, this project's truth and content."""
    file = samples / "coco" / "annotations" / "instances_val2017.json"
    categories = sorted(read_json(file)["categories"], key=lambda each: each["id"])
    ids = tuple(each["id"] for each in categories)
    with contextlib.redirect_stdout(io.StringIO()):
        truths = truths_of_file(file, ids)
    return file, ids, truths, truth_as_coco(truths, ids, [each["name"] for each in categories])


@pytest.mark.data
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_real_truth_scores_one(kind: str, real) -> None:
    _, ids, truths, content = real
    assert any(truth.crowd.any() for truth in truths)
    assert any(not len(truth.labels) for truth in truths)
    found = coco_numbers(content, entries(kind, truths, list(map(perfect, truths)), ids), kind).numbers
    assert found["AP"] == pytest.approx(1.0, abs=1e-6)
    assert found["AP_small"] == found["AP_large"] == pytest.approx(1.0, abs=1e-6)


@pytest.fixture(scope="module", params=["bbox", "segm"])
def fair(request: pytest.FixtureRequest, real, tmp_path_factory: pytest.TempPathFactory):
    """Results of a fair head, and what pycocotools alone says of their file and the official one."""
    file, ids, truths, _ = real
    kind, path = request.param, tmp_path_factory.mktemp("results") / "results.json"
    made = entries(kind, truths, [disturbed(truth, 3) for truth in truths], ids)
    write_results(path, made)
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO(str(file))
        evaluation = COCOeval(annotated, annotated.loadRes(str(path)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return kind, made, evaluation


@pytest.mark.data
@pytest.mark.parametrize(
    "engine", ["pycocotools", pytest.param("faster-coco-eval", marks=pytest.mark.oracle)]
)
def test_the_files_score_the_same_by_pycocotools_alone(engine: str, real, fair) -> None:
    """What is reported from a store's truth is what anybody gets from the results and the official file."""
    if engine == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    kind, made, alone = fair
    before = json.dumps(made)
    reported = coco_numbers(real[-1], made, kind, engine)
    assert json.dumps(made) == before
    assert [reported.numbers[name] for name in NUMBERS] == pytest.approx(alone.stats.tolist(), abs=1e-9)
    assert 0.1 < (reported.numbers["AP"] or 0) < 0.9
    classes = np.ma.masked_less(alone.eval["precision"][:, :, :, 0, -1], 0).mean(axis=(0, 1))
    assert reported.ap_by_class == pytest.approx(classes.tolist(), abs=1e-9)
