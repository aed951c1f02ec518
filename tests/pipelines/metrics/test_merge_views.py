"""Which test views go with a run of which training views."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from extract.datasets import view_recipe
from pipelines.live.backbone import run_test_recipe


def views_of(dataset: str, name: str, crop_size: int | None, **chosen: Any) -> dict[str, Any]:
    views = view_recipe(dataset, name, crop_size=crop_size).identity()
    identity = {"views": views, "dataset": {"name": dataset}}
    record: Any = SimpleNamespace(dataset=dataset, identity=identity, package=lambda part: None)
    return run_test_recipe(record, **chosen).identity()


@pytest.mark.parametrize(
    ("crop", "sizes"), [(None, [[1333, 800]]), (1024, [[1333, 800]]), (128, [[213, 128]])]
)
def test_detections_are_tested_as_in_the_papers(crop: int | None, sizes: list[list[int]]) -> None:
    """800 x 1333 after crops of 1024 px; after smaller ones the scale the head has learned from."""
    assert views_of("coco", "coco", crop)["sizes_px"] == sizes


@pytest.mark.parametrize(("crop", "short"), [(None, 512), (512, 512), (640, 640), (64, 64)])
def test_scenes_are_tested_at_the_training_scale(crop: int | None, short: int) -> None:
    assert views_of("ade20k", "ade20k", crop)["scale_px"] == [4 * short, short]


def test_explicit_settings_win() -> None:
    assert views_of("coco", "coco", None, short_side=400)["sizes_px"] == [[666, 400]]
    assert views_of("coco", "coco", 128, views="ms-flip")["flips"] == [False, True]
