"""Interpolation of views: the backbone's own, in the identity, and replayed from it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from extract.backbones.registry import backbone_card
from extract.datasets import view_recipe
from extract.decoding.decoder_process import render_image
from extract.sources.record import Record
from extract.views.clip_view import CLIP_FRAMES, ClipView, render_clips
from extract.views.fitted_views import fitted_to
from extract.views.recipes import views_of
from extract.views.view import View
from tests.extract.datasets.made_ade20k import encoded

RGB = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize("dataset", ["ade20k", "coco", "k400", "in1k"])
def test_the_recipes_own_interpolation_leaves_the_identity_as_it_was(dataset: str) -> None:
    recipe = view_recipe(dataset, {"in1k": "probe"}.get(dataset, dataset))
    own = recipe.identity().get("interpolation", "bilinear")
    assert fitted_to(recipe, 32, "a backbone") is recipe
    assert fitted_to(recipe, 32, "a backbone", interpolation=own) is recipe
    other = {"bilinear": "bicubic", "bicubic": "bilinear"}[own]
    changed = fitted_to(recipe, 32, "a backbone", interpolation=other).identity()
    assert changed.pop("interpolation") == other
    assert own not in str(changed["replay"])


def test_pixels_are_pillows_and_replayed_from_the_identity() -> None:
    record = Record("r", 1, (60, 90))
    recipe = fitted_to(view_recipe("ade20k", "single", short_side=32), 32, "a ViT", interpolation="bicubic")
    view = recipe.view("ade20k", record, 0, 0)
    expected = np.asarray(Image.fromarray(RGB).resize((48, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(view.apply_image(RGB)[:, :48], expected)
    replayed = View.from_params(view.to_params()).of_store(recipe.identity())
    data = encoded(RGB, "PNG")
    for each in (view, replayed):
        assert np.array_equal(render_image(data, (60, 90), [each])[0][:, :48], expected)
    bilinear = View.from_params(view.to_params()).apply_image(RGB)[:, :48]
    assert not np.array_equal(bilinear, expected)


def test_frames_of_clips_too() -> None:
    sizes = {"resized_hw": (30, 45), "crop_hw": (20, 20), "valid_hw": (32, 32), "padded_hw": (32, 32)}
    view = ClipView(frames=(0,) * CLIP_FRAMES, **sizes).of_store({"interpolation": "bicubic"})
    whole = Image.fromarray(RGB).resize((45, 30), Image.Resampling.BICUBIC).crop((0, 0, 20, 20))
    expected = np.asarray(whole.resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(render_clips([(0, RGB)], [view])[0][0], expected)


def test_the_backbones_own() -> None:
    """timm records bicubic for the first, bilinear for the second; swinv2-t keeps the recipes of papers."""
    assert backbone_card("timm:vit_small_patch14_dinov2").interpolation == "bicubic"
    assert backbone_card("timm:resnet18.tv_in1k").interpolation == "bilinear"
    assert backbone_card("timm:resnet18.tv_in1k", interpolation="bicubic").interpolation == "bicubic"
    assert backbone_card("swinv2-t").interpolation is None
    with pytest.raises(ValueError, match="interpolation 'nearest': expected bilinear or bicubic"):
        fitted_to(view_recipe("ade20k", "single"), 32, "a ViT", interpolation="nearest")


def test_all_views_of_a_record_stay() -> None:
    """A recipe fitted to a backbone has as many views as without it."""
    record = Record("r", 1, (60, 90))
    for multiple_px, interpolation in ((14, None), (32, "bicubic")):
        seeded = fitted_to(view_recipe("ade20k", "ade20k"), multiple_px, "a", interpolation=interpolation)
        windows = fitted_to(view_recipe("ade20k", "slide"), multiple_px, "a", interpolation=interpolation)
        assert views_of(seeded, record, 4) == 4
        assert views_of(windows, record, 9) == 2
