"""Revisions of views: crops resized alone, those of earlier stores as they were, and the colours of both."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from extract.datasets import view_recipe
from extract.decoding.decoder_process import render_image
from extract.sources.record import Record
from extract.views import colour
from extract.views.view import replay_rule, revision_of
from tests.extract.datasets.made_ade20k import encoded

REVISION_1 = {
    "order": "resize, crop, flip, colour, pad",
    "image_resize": "Pillow bilinear with antialias, whole image",
    "label_resize": "nearest, source cell floor((i + 1/2) * from / to)",
    "padding": "right and bottom to multiples of 32 px, zero after normalisation",
    "revision": 1,
}
"""Of the identities of stores made before there was another."""


def photograph(hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth colours with edges and noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize(hw[::-1], Image.Resampling.BICUBIC)).astype(int)
    smooth[hw[0] // 3 : hw[0] // 2, hw[1] // 4 :] //= 3
    return (smooth + rng.integers(-9, 10, (*hw, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["ade20k", "coco"])
def test_a_crop_alone_differs_by_rounding(name: str) -> None:
    recipe = view_recipe(name, name, crop_size=96)
    shares = []
    for index, hw in enumerate([(120, 160), (333, 250), (64, 400), (97, 96)] * 3):
        rgb = photograph(hw, index)
        view = recipe.view(name, Record(f"r{index}", 1, hw), index, 0)
        new, old = view.apply_image(rgb).astype(int), replace(view, revision=1).apply_image(rgb)
        if view.colour == colour.Colour():  # a distortion may enlarge a difference
            assert np.abs(new - old).max() <= 2
        shares.append(float((new != old).mean()))
    assert 0 < np.mean(shares) < 0.1


def test_whole_images_are_those_of_revision_1() -> None:
    for dataset, recipe_name in (("ade20k", "ms-flip"), ("coco", "ms-flip"), ("ade20k", "single")):
        recipe = view_recipe(dataset, recipe_name, short_side=90)
        assert revision_of(recipe.identity()) == 1, "stores of earlier releases stay the ones asked for"
        rgb = photograph((75, 130))
        for index in range(recipe.fixed_count or 1):
            view = recipe.view(dataset, Record("r", 1, (75, 130)), index, 0)
            assert np.array_equal(view.apply_image(rgb), replace(view, revision=1).apply_image(rgb))


def test_stores_of_earlier_releases_are_replayed_as_they_were_made() -> None:
    assert replay_rule(1) == REVISION_1 and revision_of({"replay": REVISION_1}) == 1
    old = view_recipe("ade20k", "ade20k", crop_size=64, revision=1)
    new = view_recipe("ade20k", "ade20k", crop_size=64)
    assert old.identity()["replay"] == replay_rule(1) and new.identity()["replay"] == replay_rule(2)
    hw = (150, 211)
    views = [recipe.view("ade20k", Record("r", 1, hw), 1, 0) for recipe in (old, new)]
    assert views[0] == views[1], "the same parameters"
    data = encoded(photograph(hw), "PNG")
    rgb = np.asarray(Image.open(io.BytesIO(data)))
    for view, replayed in zip(views, (replace(views[0], revision=1), views[1]), strict=True):
        assert np.array_equal(render_image(data, hw, [view])[0], replayed.apply_image(rgb))
    (height, width), (y, x), (rows, columns) = views[0].resized_hw, views[0].crop_yx, views[0].valid_hw
    whole = Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR)
    crop = np.asarray(whole)[y : y + rows, x : x + columns]
    expected = views[0].colour.apply(crop[:, ::-1] if views[0].flip else crop)
    assert np.array_equal(views[0].apply_image(rgb)[:rows, :columns], expected)


def test_unknown_revisions_are_refused() -> None:
    with pytest.raises(ValueError, match="have no revision 7; available: 1, 2"):
        view_recipe("ade20k", "ade20k", revision=7)
    with pytest.raises(ValueError, match="single have no revision 2; available: 1"):
        view_recipe("ade20k", "single", revision=2)


def defined_hsv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """OpenCV's integer rule of 8-bit HSV, as it is written down."""
    shift, half = 12, 1 << 11
    r, g, b = (rgb[..., channel].astype(np.int64) for channel in range(3))
    value = rgb.max(-1).astype(np.int64)
    spread = value - rgb.min(-1)
    divisor = np.maximum(value, 1)
    of_value = np.where(value > 0, np.rint((255 << shift) / divisor), 0).astype(np.int64)
    of_spread = np.where(spread > 0, np.rint((180 << shift) / (6 * np.maximum(spread, 1))), 0).astype(
        np.int64
    )
    sector = np.where(value == r, g - b, np.where(value == g, b - r + 2 * spread, r - g + 4 * spread))
    hue = (sector * of_spread + half) >> shift
    return hue + 180 * (hue < 0), (spread * of_value + half) >> shift, value


def test_tables_of_colours_are_the_rule() -> None:
    """All spreads, values and sectors: blue runs through a few values, red and green through all."""
    r, g = np.indices((256, 256))
    for b in (0, 1, 77, 200, 255):
        rgb = np.stack([r, g, np.full_like(r, b)], -1).astype(np.uint8)
        for turn in range(3):
            turned = np.roll(rgb, turn, axis=-1)
            for found, expected in zip(colour.rgb_to_hsv(turned), defined_hsv(turned), strict=True):
                assert np.array_equal(found, expected)


def test_float32_gives_the_whole_numbers_of_the_way_back() -> None:
    """Every value and saturation at every hue of a sector's half, where the fall takes all its 31 values."""
    value, saturation = np.indices((256, 256)).astype(np.uint8)
    for hue in (*range(31), 95, 179):
        found = colour.hsv_to_rgb(np.full_like(value, hue), saturation, value)
        for channel, offset in enumerate((5, 3, 1)):
            k = (hue + 30 * offset) % 180
            fall = min(max(min(k, 120 - k), 0), 30)
            depth = value.astype(np.int64) * saturation * fall
            expected = (value.astype(np.int64) * 7650 + 3825 - depth) // 7650
            assert np.array_equal(found[..., channel], expected)
