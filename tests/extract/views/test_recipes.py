"""Views replay exactly, on pixels and labels alike, and follow from nothing but what keys them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from extract.datasets import view_recipe
from extract.sources.record import Record
from extract.views.colour import Colour, draw_colour, hsv_to_rgb, rgb_to_hsv
from extract.views.recipes import RandomCrops
from extract.views.seeded_draws import Draws
from extract.views.view import VIEW_PARAMS, View, keep_ratio, label_crop, padded_up
from tests.extract.datasets.made_ade20k import made_image, made_labels


def record(key: str, hw: tuple[int, int]) -> Record:
    return Record(key, 0, hw)


SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))
LINE = st.tuples(st.just(1), st.integers(1, 3000))
EXTREME = st.one_of(SIZES, LINE, LINE.map(lambda hw: hw[::-1]))
RECIPES = st.sampled_from(
    [
        view_recipe("ade20k", "ade20k", crop_size=64),
        view_recipe("ade20k", "ade20k", crop_size=32, short_side=100),
        view_recipe("ade20k", "single", short_side=48),
        view_recipe("ade20k", "ms-flip", short_side=48),
    ]
)


@given(RECIPES, EXTREME, st.integers(0, 11), st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_a_view_replays_exactly_from_its_numbers(recipe, hw, index, seed) -> None:
    rgb, labels = made_image(seed % 1000, hw), made_labels(seed % 1000, hw)
    index %= recipe.fixed_count or 12
    view = recipe.view("ade20k", record("key", hw), index, seed, labels)
    params = np.frombuffer(view.to_params().tobytes())  # as they come back from disk
    assert params.shape == (len(VIEW_PARAMS),)
    again = View.from_params(params)
    assert again == view == recipe.view("ade20k", record("key", hw), index, seed, labels)
    pixels, target = view.apply_image(rgb), view.apply_labels(labels)
    assert np.array_equal(again.apply_image(rgb), pixels) and np.array_equal(
        again.apply_labels(labels), target
    )
    assert pixels.shape == (*view.padded_hw, 3) and target.shape == view.padded_hw
    assert all(side % 32 == 0 for side in view.padded_hw)
    inside = np.zeros(view.padded_hw, bool)
    inside[: view.valid_hw[0], : view.valid_hw[1]] = True
    assert not pixels[~inside].any() and (target[~inside] == 255).all()


@given(EXTREME, st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_training_views_are_mmsegs_sizes_in_one_bin(hw, seed) -> None:
    recipe = view_recipe("ade20k", "ade20k", crop_size=64)
    view = recipe.view("ade20k", record("key", hw), 0, seed, made_labels(1, hw))
    assert view.padded_hw == (64, 64)
    assert view.valid_hw == tuple(min(64, side) for side in view.resized_hw)
    long_px, short_px = max(view.resized_hw), min(view.resized_hw)
    assert long_px <= 512 and (short_px <= 128 or min(hw) == max(hw))


@given(EXTREME, st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_labels_stay_on_their_pixels_to_the_borders(hw, flip, seed) -> None:
    """Red holds the row, green the column of the source pixel: no label is more than a cell off its pixel."""
    view = replace(
        view_recipe("ade20k", "ade20k", crop_size=64).view("ade20k", record("key", hw), 0, seed),
        flip=flip,
        colour=Colour(),
    )
    for axis, name in enumerate(("row", "column")):
        ramp = np.linspace(0, 254, hw[axis]).round().astype(np.uint8)
        source = np.broadcast_to(ramp[:, None] if axis == 0 else ramp[None, :], hw)
        pixels = view.apply_image(np.ascontiguousarray(np.repeat(source[..., None], 3, axis=2)))[..., 0]
        target = view.apply_labels(np.ascontiguousarray(source))
        valid = (slice(view.valid_hw[0]), slice(view.valid_hw[1]))
        cell = 254 / max(hw[axis] - 1, 1)  # what one source pixel differs from the next
        off = np.abs(pixels[valid].astype(int) - target[valid])
        assert off.max() <= cell * max(1, hw[axis] / view.resized_hw[axis]) + 2, name


def test_a_flipped_view_is_the_mirror_before_padding() -> None:
    rgb, labels = made_image(3, (40, 72)), made_labels(3, (40, 72))
    recipe = view_recipe("ade20k", "ms-flip", short_side=40)
    plain, flipped = (recipe.view("ade20k", record("key", (40, 72)), index, 0) for index in (4, 5))
    assert (plain.flip, flipped.flip) == (False, True)
    assert plain.valid_hw == (40, 72) and plain.padded_hw == (64, 96)
    assert np.array_equal(flipped.apply_image(rgb)[:40, :72], rgb[:, ::-1])
    assert np.array_equal(plain.apply_image(rgb)[:40, :72], rgb)
    assert np.array_equal(flipped.apply_labels(labels)[:40, :72], labels[:, ::-1])


def test_label_cells_are_those_of_exact_nearest_neighbour() -> None:
    labels = np.arange(7 * 5, dtype=np.uint8).reshape(7, 5)
    doubled = label_crop(labels, (14, 10), (0, 0), (14, 10))
    assert np.array_equal(doubled, np.kron(labels, np.ones((2, 2), np.uint8)))
    assert np.array_equal(label_crop(labels, (14, 10), (3, 2), (6, 5)), doubled[3:9, 2:7])
    third = label_crop(np.repeat(labels, 3, axis=0), (7, 5), (0, 0), (7, 5))
    assert np.array_equal(third, labels)  # the centre of three
    pillow = Image.fromarray(made_labels(2, (64, 48))).resize((111, 97), Image.Resampling.NEAREST)
    ours = label_crop(made_labels(2, (64, 48)), (97, 111), (0, 0), (97, 111))
    assert (np.asarray(pillow) != ours).mean() < 1e-3  # Pillow adds up steps in floating point


def test_scale_steps_of_the_test_recipes() -> None:
    single, multi = view_recipe("ade20k", "single"), view_recipe("ade20k", "ms-flip")
    assert single.view("ade20k", record("k", (480, 640)), 0, 0).resized_hw == (512, 683)
    views = [multi.view("ade20k", record("k", (480, 640)), index, 0) for index in range(12)]
    assert [v.resized_hw[0] for v in views[::2]] == [256, 384, 512, 640, 768, 896]
    assert [v.flip for v in views] == [False, True] * 6
    assert multi.view("ade20k", record("k", (480, 640)), 3, 0) == multi.view(
        "other", record("key", (480, 640)), 3, 9
    )
    assert single.view("ade20k", record("k", (1, 9000)), 0, 0).resized_hw == (1, 2048)  # never empty


@pytest.mark.data
@pytest.mark.parametrize(("recipe", "bins", "rows"), [("single", 33, 2000), ("ms-flip", 225, 24000)])
def test_bins_of_the_official_validation_sizes(samples: Path, recipe: str, bins: int, rows: int) -> None:
    sizes_file = samples / "ade20k" / "validation.odgt"
    if not sizes_file.is_file():
        pytest.skip("the samples hold no list of validation sizes")
    chosen = view_recipe("ade20k", recipe)
    sizes = [json.loads(line) for line in sizes_file.read_text().splitlines()]
    padded = [
        chosen.view("ade20k", record("key", (size["height"], size["width"])), index, 0).padded_hw
        for size in sizes
        for index in range(chosen.fixed_count or 0)
    ]
    assert (len(set(padded)), len(padded)) == (bins, rows)


def test_every_part_of_the_key_and_nothing_else_decides() -> None:
    recipe, labels = view_recipe("ade20k", "ade20k", crop_size=32), made_labels(1, (64, 64))
    view = recipe.view("ade20k", record("a", (64, 64)), 0, 0, labels)
    others = [
        recipe.view("coco", record("a", (64, 64)), 0, 0, labels),
        recipe.view("ade20k", record("b", (64, 64)), 0, 0, labels),
        recipe.view("ade20k", record("a", (64, 64)), 1, 0, labels),
        recipe.view("ade20k", record("a", (64, 64)), 0, 1, labels),
    ]
    assert len({v.to_params().tobytes() for v in [view, *others]}) == 5
    larger = view_recipe("ade20k", "ade20k", crop_size=64).view("ade20k", record("a", (64, 64)), 0, 0, labels)
    assert (larger.flip, larger.colour) == (view.flip, view.colour)  # each purpose has its own generator


def test_views_are_those_of_revision_1() -> None:
    """Change these numbers only together with VIEWS_REVISION: stores are identified by it."""
    labels = made_labels(1, (512, 683))
    view = view_recipe("ade20k", "ade20k").view(
        "ade20k", record("ADE_train_00000001", (512, 683)), 3, 1, labels
    )
    resized, crop, valid, padded = (827, 1103), (161, 347), (512, 512), (512, 512)
    colour = (0.0, 1.2273038391888758, 0.0, 0.5308098915308845, -3.0)
    assert view.to_params().tolist() == [*resized, *crop, *valid, *padded, 0.0, *colour]
    draws = Draws("ade20k", "ADE_train_00000001", 0, 0, "scale")
    assert [draws.uniform(0, 1) for _ in range(2)] == [0.1832836551002368, 0.9456718627204281]


def test_draws_fill_their_ranges_evenly() -> None:
    draws = Draws("test", 0)
    uniform = np.array([draws.uniform(2.0, 4.0) for _ in range(4000)])
    assert uniform.min() >= 2 and uniform.max() < 4 and abs(uniform.mean() - 3) < 0.03
    counts = np.bincount([draws.integer(5) for _ in range(5000)], minlength=5)
    assert counts.min() > 850 and counts.max() < 1150 and len(counts) == 5
    assert 0.2 < np.mean([draws.happens(0.25) for _ in range(4000)]) < 0.3


def test_crops_of_one_class_are_drawn_again_up_to_ten_times() -> None:
    labels = np.zeros((256, 256), np.uint8)
    labels[128:, 128:] = np.arange(128 * 128).reshape(128, 128) // 64 % 7 + 1
    recipe = RandomCrops(name="ade20k", crop_px=32, short_px=256, ratio_range=(1.0, 1.0))
    blind = replace(recipe, cat_max_ratio=1.1, tries=0)

    def varied(chooser: RandomCrops, index: int) -> bool:
        view = chooser.view("ade20k", record("key", (256, 256)), index, 0, labels)
        counts = np.bincount(label_crop(labels, view.resized_hw, view.crop_yx, view.valid_hw).reshape(-1))
        return bool(np.count_nonzero(counts) > 1 and counts.max() < 0.75 * counts.sum())

    shares = [np.mean([varied(chooser, index) for index in range(60)]) for chooser in (blind, recipe)]
    assert shares[0] < 0.5 and shares[1] > 0.9
    one_class = recipe.view("ade20k", record("key", (256, 256)), 0, 0, np.zeros((256, 256), np.uint8))
    assert one_class.valid_hw == (32, 32)  # gives up, as mmseg does, and never loops
    assert recipe.view("ade20k", record("key", (256, 256)), 0, 0).valid_hw == (32, 32)  # without labels


@given(st.integers(0, 2**40), st.floats(-32, 32), st.floats(0.5, 1.5))
@settings(max_examples=40, deadline=None)
def test_brightness_and_contrast_truncate_as_in_mmseg(seed, brightness, contrast) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    exact = rgb.astype(np.float32)
    brighter = np.clip(exact + np.float32(brightness), 0, 255).astype(np.uint8)
    assert np.array_equal(Colour(brightness=brightness).apply(rgb), brighter)
    harder = np.clip(exact * np.float32(contrast), 0, 255).astype(np.uint8)
    assert np.array_equal(Colour(contrast=contrast).apply(rgb), harder)


def test_contrast_comes_first_or_last() -> None:
    rgb = np.array([[[200, 100, 50]]], np.uint8)
    first, last = (Colour(0.0, 1.5, is_first, 0.5, 0).apply(rgb)[0, 0].tolist() for is_first in (True, False))
    assert first == [255, 204, 165]  # clipped to (255, 150, 75), then half the saturation
    assert last == [255, 225, 187]  # half the saturation gives (200, 150, 125), then clipped
    assert Colour().apply(rgb) is rgb  # nothing to do, nothing copied
    assert Colour(hue=-18).apply(rgb)[0, 0].tolist() == [200, 50, 90]  # from 20 to 344 degrees


def test_hsv_is_opencvs_of_eight_bits() -> None:
    rng = np.random.default_rng(0)
    rgb = np.concatenate([rng.integers(0, 256, (4000, 3)), np.repeat(np.arange(256)[:, None], 3, axis=1)])
    rgb = rgb.astype(np.uint8)[None]
    hue, saturation, value = (channel.astype(float)[0] for channel in rgb_to_hsv(rgb))
    top, bottom = rgb.max(axis=-1)[0].astype(float), rgb.min(axis=-1)[0].astype(float)
    assert np.array_equal(value, top)
    spread = np.maximum(top - bottom, 1e-9)
    assert np.abs(saturation - np.where(top > 0, 255 * (top - bottom) / np.maximum(top, 1), 0)).max() <= 0.55
    r, g, b = rgb[0].astype(float).T
    degrees = np.select(
        [top == bottom, top == r, top == g],
        [0 * r, 60 * (g - b) / spread, 120 + 60 * (b - r) / spread],
        240 + 60 * (r - g) / spread,
    )
    off = np.abs(hue - (degrees % 360) / 2)
    assert np.minimum(off, 180 - off).max() <= 0.6  # its tables round once more
    back = hsv_to_rgb(*rgb_to_hsv(rgb))
    assert np.abs(back.astype(int) - rgb).max() <= 6  # what 180 hues and 256 saturations keep
    gray = rgb[:, 4000:]
    assert np.array_equal(hsv_to_rgb(*rgb_to_hsv(gray)), gray)


def test_colour_draws_have_mmsegs_ranges_and_probabilities() -> None:
    colours = [draw_colour(Draws("colour", number)) for number in range(3000)]
    ranges = {"brightness": (0.0, -32, 32), "contrast": (1.0, 0.5, 1.5), "saturation": (1.0, 0.5, 1.5)}
    for field, (neutral, low, high) in {**ranges, "hue": (0, -18, 17)}.items():
        values = np.array([getattr(colour, field) for colour in colours])
        changed = values[values != neutral]
        assert 0.44 < len(changed) / len(values) < 0.56
        assert changed.min() >= low and changed.max() <= high
        assert changed.min() < low + 0.05 * (high - low) and changed.max() > high - 0.05 * (high - low)
    assert 0.45 < np.mean([colour.contrast_first for colour in colours]) < 0.55


def test_recipes_refuse_what_they_cannot_have() -> None:
    with pytest.raises(ValueError, match="ade20k, ade20k-m2f, single, ms-flip"):
        view_recipe("ade20k", "4x3")
    for bad in ({"crop_size": 100}, {"crop_size": 0}, {"short_side": 0}):
        with pytest.raises(ValueError, match="expected"):
            view_recipe("ade20k", "ade20k", **bad)
    with pytest.raises(ValueError, match="no crop_size"):
        view_recipe("ade20k", "single", crop_size=128)
    with pytest.raises(ValueError, match="crops 9 of 8"):
        View(resized_hw=(8, 8), valid_hw=(9, 8), padded_hw=(32, 32))
    with pytest.raises(ValueError, match="expected 14"):
        View.from_params([0.0] * 13)


def test_sizes_follow_mmcv() -> None:
    assert keep_ratio((1080, 1920), 2048, 512) == (512, 910)
    assert keep_ratio((100, 1000), 2048, 512) == (205, 2048)
    assert padded_up((205, 2048)) == (224, 2048)
