"""Keypoints of real persons through view, heatmap and back, and COCO's AP of what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from extract.datasets import open_dataset
from extract.datasets.persons.coco_rule import COCO_KEYPOINTS
from extract.datasets.persons.person_data import PersonData
from extract.views.persons.affine_view import AFFINE_PARAMS, AffineView
from extract.views.persons.person_recipes import VIEW_RECIPES
from heads.contract import Head
from heads.pose.heatmaps import target_heatmaps
from pipelines.metrics.pose_places import flipped, pose_of
from pipelines.tasks.contract import TestView
from pipelines.tasks.pose import PoseEstimation
from stores.pyramid import Level, PyramidSpec

VIEW, MAP = (256, 256), (64, 64)
MARGIN_PX = 3 * 2.0 * 255 / 63
"""Three sigma of a heatmap in pixels of the view: nearer to an edge the Gaussian is cut."""

BESIDE = "000000151938_500742"
"""Its hips are annotated below its padded box: no crop of it shows them."""


def persons(samples: Path) -> list[PersonData]:
    if not (samples / "coco/annotations/person_keypoints_val2017.json").is_file():
        pytest.skip("no real samples: no coco/annotations/person_keypoints_val2017.json there")
    opened = [open_dataset("coco_pose", samples / "coco", split) for split in ("train2017", "val2017")]
    return [each for each in opened if isinstance(each, PersonData)]


def heatmaps_of(targets: Any) -> Tensor:
    maps, _ = target_heatmaps(torch.from_numpy(targets["keypoints"])[None], VIEW, MAP)
    return maps[0]


@pytest.mark.ci
def test_keypoints_come_back(samples: Path) -> None:
    """Of all persons of the samples, under rotated, scaled, shifted and mirrored views, halves of bodies and
    the test views: within 0.5 px of the crop, wherever the whole Gaussian lies inside."""
    checked, worst, turned, halves = 0, 0.0, 0, 0
    for dataset in persons(samples):
        for index, record in enumerate(dataset.records):
            truth = dataset.read_truth(index)
            views: list[Any] = [VIEW_RECIPES["flip"](None, None).view("p", record, n, 0) for n in range(2)]
            views += [VIEW_RECIPES["pose"](None, None).view("p", record, n, 0) for n in range(6)]
            for view in views:
                assert isinstance(view, AffineView)
                replayed = AffineView.from_params(view.to_params())
                targets = dataset.targets(truth, replayed)
                maps = heatmaps_of(targets)
                maps = flipped(maps, COCO_KEYPOINTS) if view.flip else maps
                params = {**dict(zip(AFFINE_PARAMS, view.to_params().tolist(), strict=True)), "flip": 0.0}
                pose = pose_of(maps, params, VIEW, box=truth.xywh, box_score=1.0)
                in_view = AffineView.from_params([params[name] for name in AFFINE_PARAMS]).apply_points
                wanted, found = in_view(truth.keypoints[:, :2]), in_view(pose.keypoints)
                inside = ((wanted > MARGIN_PX) & (wanted < 255 - MARGIN_PX)).all(1)
                counted = inside & (truth.keypoints[:, 2] > 0)
                errors = np.abs(found - wanted)[counted]
                worst, checked = max(worst, float(errors.max(initial=0))), checked + len(errors)
                assert (pose.scores[~(truth.keypoints[:, 2] > 0)] == 0).all()
                turned += view.matrix[1] != 0
                halves += view.half_body
    assert checked > 3000 and turned > 100 and halves > 20
    assert worst < 0.5


class TruthAsHead(Head):
    """Gives the target heatmaps of rows whose features are their keypoints."""

    task = "pose"

    def __init__(self, swapped: bool = False) -> None:
        super().__init__(PyramidSpec((Level(name="p5", stride_px=32, channels=51, stage=4),)), 17)
        self.swapped = swapped

    @property
    def target_names(self) -> tuple[str, ...]:
        return ("keypoints",)

    def losses(self, *_: Any, **__: Any) -> dict[str, Tensor]:
        raise NotImplementedError

    def predict(self, features: Any, valid_hw: Any, output_hw: Any) -> list[Tensor]:
        keypoints = features["p5"].reshape(-1, 17, 3)
        maps, _ = target_heatmaps(keypoints, VIEW, MAP)
        return list(maps[:, list(COCO_KEYPOINTS.mirrored)] if self.swapped else maps)


def views_of(dataset: PersonData, recipe: str, without: str) -> Iterator[TestView]:
    views = VIEW_RECIPES[recipe](None, None)
    for place, record in enumerate(dataset.records):
        if record.key == without:
            continue
        truth = dataset.read_truth(place)
        for number in range(views.fixed_count or 1):
            view = views.view("p", record, number, 0)
            targets = dataset.targets(truth, view)
            keypoints = torch.from_numpy(targets["keypoints"]).reshape(1, 51, 1, 1)
            yield TestView(
                key=record.key,
                features={"p5": keypoints},
                valid_hw=view.valid_hw,
                params=dict(zip(AFFINE_PARAMS, view.to_params().tolist(), strict=True)),
                original_hw=record.original_hw,
                truth=targets,
                record=place,
            )


def measured(dataset: PersonData, swapped: bool, recipe: str = "flip", without: str = "") -> Any:
    facts = {"class_names": list(dataset.class_names), "task_facts": dataset.task_facts}
    task = PoseEstimation().for_dataset(facts)
    return task.measure(
        TruthAsHead(swapped), views_of(dataset, recipe, without), views_name=recipe,
        device=torch.device("cpu"), bf16=False,
    )  # fmt: skip


@pytest.mark.oracle
def test_ap_of_the_true_heatmaps_by_the_official_file(samples: Path, tmp_path: Path) -> None:
    """The numbers that pycocotools has of the results file and COCO's own annotations; 1.000 of all persons
    whose keypoints their crops show; below 0.7 with left and right in each other's place."""
    dataset = persons(samples)[1]
    found = measured(dataset, swapped=False)
    assert [key for key, score in found._record_scores().items() if score < 0.99] == [BESIDE]
    found.write(tmp_path, "", dataset.class_names)
    official = COCO(str(samples / "coco/annotations/person_keypoints_val2017.json"))
    evaluation = COCOeval(official, official.loadRes(str(tmp_path / "results-keypoints.json")), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert found.numbers["AP"] == pytest.approx(evaluation.stats[0]) and evaluation.stats[0] > 0.99
    assert [found.numbers[name] for name in ("AR", "APm", "APl")] == pytest.approx(
        [evaluation.stats[5], evaluation.stats[3], evaluation.stats[4]]
    )
    assert "(flip, annotated boxes) AP50 100.00" in found.line() and "34 persons in" in found.line()
    assert measured(dataset, swapped=False, without=BESIDE).numbers["AP"] >= 0.9995
    swapped = measured(dataset, swapped=True, recipe="single")
    assert swapped.numbers["AP"] < 0.7
    # Both pictures hold what their files are called.
    assert (tmp_path / "poses.png").stat().st_size > 10_000
    rows = (tmp_path / "keypoints.csv").read_text().splitlines()
    assert len(rows) == 18 and float(rows[6].split(",")[2]) > 0.99


def test_one_view_alone_scores_as_well(samples: Path) -> None:
    for recipe in ("single", "flip"):
        found = measured(persons(samples)[1], swapped=False, recipe=recipe, without=BESIDE)
        assert found.numbers["AP"] >= 0.9995
