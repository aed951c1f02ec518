"""Sliding windows: where they lie, and their mean pixel by pixel against a loop."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from extract.datasets import view_recipe
from extract.sources.record import Record
from extract.views.fitted_views import fitted_to
from extract.views.recipes import views_of
from extract.views.segmentation_recipes import slide
from extract.views.view import View
from heads import build_head
from pipelines.tasks.contract import TestView
from pipelines.tasks.segmentation import record_labels, record_scores
from stores.pyramid import PyramidSpec
from tests.heads.pyramids import plain_pyramid

CLASSES = 3
PYRAMID = PyramidSpec(plain_pyramid(4, 1))


def test_windows_are_mmsegs() -> None:
    """512 px every 341 px, the last one flush; one for a square, and none beyond the image."""
    recipe = slide(None, None)
    wide, square, tall = Record("a", 1, (300, 400)), Record("b", 1, (99, 99)), Record("c", 1, (4000, 500))
    corners = [recipe.view("d", wide, i, 0).crop_yx for i in range(views_of(recipe, wide, 6))]
    assert corners == [(0, 0), (0, 171)]  # 512 x 683
    assert views_of(recipe, square, 6) == 1 and views_of(recipe, tall, 6) == 6 == recipe.fixed_count
    last = recipe.view("d", tall, 5, 0)
    assert last.resized_hw == (2048, 256) and last.crop_yx == (1536, 0)
    assert last.valid_hw == (512, 256) and last.padded_hw == (512, 512)
    assert recipe.identity()["stride_px"] == 341


def test_windows_of_patches() -> None:
    recipe = fitted_to(slide(None, None), 14, "a ViT")
    record = Record("a", 1, (300, 400))
    assert views_of(recipe, record, 9) == 2 and recipe.view("d", record, 1, 0).padded_hw == (518, 518)
    assert slide("96x64", 64).identity()["crop_px"] == [96, 64]
    with pytest.raises(ValueError, match="a short side of 1 px"):
        slide(None, 1)


def shown(key: str, record: Record, view: View, seed: int) -> TestView:
    """A view of drawn features of one level of 4 x 4 patches."""
    names = ("resized_y", "resized_x", "crop_y", "crop_x")
    params = dict(zip(names, map(float, (*view.resized_hw, *view.crop_yx)), strict=True))
    return TestView(
        key=key,
        features={"b1n": torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(seed))},
        valid_hw=view.valid_hw,
        params=params,
        original_hw=record.original_hw,
        truth={"original_labels": np.zeros(record.original_hw, np.uint8)},
    )


@torch.no_grad()
def test_overlaps_are_averaged_before_the_softmax() -> None:
    head = build_head("dino-linear", "segmentation", PYRAMID, CLASSES, seed=0).eval()
    head.classifier.weight.mul_(100)
    recipe, record = slide(64, 64), Record("a", 1, (50, 90))
    views, logits = [], []
    for view in (recipe.view("d", record, index, 0) for index in range(views_of(recipe, record, 9))):
        views.append(shown("a", record, view, seed=len(views)))
        scores = F.interpolate(head(views[-1].features, [(64, 64)]), size=view.valid_hw, mode="bilinear")[0]
        logits.append((view.crop_yx, scores))
    assert [corner for corner, _ in logits] == [(0, 0), (0, 42), (0, 51)]  # of 64 x 115 px
    ((_, found),) = record_scores(head, views, device=torch.device("cpu"), bf16=False)
    mean = torch.zeros(CLASSES, 64, 115)
    for y in range(64):
        for x in range(115):
            seen = [s[:, y - top, x - left] for (top, left), s in logits if left <= x < left + 64]
            mean[:, y, x] = sum(seen) / len(seen)
    expected = F.interpolate(mean[None], size=(50, 90), mode="bilinear")[0].softmax(0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="do not cover the image"):
        list(record_scores(head, views[:1], device=torch.device("cpu"), bf16=False))


def test_images_of_one_window_and_of_several_go_through_the_head_together() -> None:
    """Each record alone has the scores that it has beside the others; sizes of the originals differ."""
    head = build_head("dino-linear", "segmentation", PYRAMID, CLASSES, seed=0).eval()
    with torch.no_grad():
        head.classifier.weight.mul_(100)
    recipe, of_record = slide(64, 64), {}
    for key, hw in {"a": (48, 48), "b": (50, 90), "c": (80, 80), "d": (90, 50)}.items():
        record = Record(key, 1, hw)
        made = (recipe.view("d", record, index, 0) for index in range(views_of(recipe, record, 9)))
        of_record[key] = [shown(key, record, view, seed) for seed, view in enumerate(made, ord(key))]
    assert [len(views) for views in of_record.values()] == [1, 3, 1, 3]
    together = [view for views in of_record.values() for view in views]
    how = {"device": torch.device("cpu"), "bf16": False}
    for found in (record_scores, record_labels):
        of_all = list(found(head, together, **how))
        assert [view.key for view, _ in of_all] == list(of_record)
        for view, values in of_all:
            ((_, alone),) = found(head, of_record[view.key], **how)
            assert values.shape[-2:] == view.original_hw
            torch.testing.assert_close(values, alone)


def test_a_stride_of_ones_own() -> None:
    recipe = view_recipe("ade20k", "slide", slide_stride=256)
    wide = Record("a", 1, (300, 600))  # resized to 512 x 1024
    assert [recipe.view("d", wide, i, 0).crop_yx for i in range(3)] == [(0, 0), (0, 256), (0, 512)]
    assert views_of(recipe, wide, 9) == 3 and recipe.identity()["stride_px"] == 256
    with pytest.raises(ValueError, match="slide_stride 600: expected 1 to 512 px"):
        view_recipe("ade20k", "slide", slide_stride=600)
    with pytest.raises(ValueError, match="slide_stride 256: views of single are no sliding windows"):
        view_recipe("ade20k", "single", slide_stride=256)
