"""Rectangular crops: how they are written, and that every recipe's views of them are consistent."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, binary_erosion

from extract.datasets import choose, view_recipe
from extract.sources.record import Record
from extract.views.clip_recipes import ClipsTimesCrops
from extract.views.crop_size import crop_hw, plain_size, size_in_identity, size_text
from extract.views.instances import Polygons, seen
from extract.views.recipes import views_of

sides = st.integers(1, 6).map(lambda number: 32 * number)
crops = st.tuples(sides, sides)
originals = st.tuples(st.integers(8, 400), st.integers(8, 400))


@given(crops)
def test_every_way_of_writing_is_one_size(crop: tuple[int, int]) -> None:
    height, width = crop
    for written in (crop, list(crop), f"{height}x{width}", f" {height} X {width} ", size_in_identity(crop)):
        assert crop_hw(written) == crop
    assert crop_hw(size_text(crop)) == crop_hw(plain_size(crop)) == crop
    assert isinstance(size_in_identity(crop), int) == (height == width)


@pytest.mark.parametrize("written", ["512x", "x512", "5.5", "512x1024x3", "-32", True, (1, 2, 3), (1.0, 2)])
def test_other_sizes_are_refused(written: Any) -> None:
    with pytest.raises(ValueError, match="expected pixels: the side of a square"):
        crop_hw(written)


@settings(max_examples=30)
@given(crops, originals, st.integers(0, 50), st.sampled_from(["ade20k", "ade20k-m2f", "coco", "k400"]))
def test_training_views_fill_the_crop_and_no_more(
    crop: tuple[int, int], original: tuple[int, int], index: int, name: str
) -> None:
    """Padded to the crop; what is shown is within it, and all of the image where that is smaller."""
    recipe = view_recipe(name.partition("-")[0], name, crop_size=crop)
    record = Record("a", 1, original, frames=80, fps=25.0, decoder="pyav")
    view = recipe.view("set", record, index, 0)
    assert view.padded_hw == crop
    if name == "k400":
        assert view.valid_hw == crop
    else:
        assert view.valid_hw == tuple(min(pair) for pair in zip(view.resized_hw, crop, strict=True))
    again = type(view).from_params(view.to_params())
    assert again == view
    pixels = view.apply_image(np.full((*original, 3), 200, np.uint8))
    assert pixels.shape == (*crop, 3)
    assert not pixels[view.valid_hw[0] :].any() and not pixels[:, view.valid_hw[1] :].any()


@settings(max_examples=30)
@given(crops, originals, st.integers(0, 20))
def test_jitter_fits_the_whole_image_into_the_crop_at_ratio_1(
    crop: tuple[int, int], original: tuple[int, int], index: int
) -> None:
    """A ratio of at most 1 shows all of the image; the aspect is kept but for rounding."""
    view = view_recipe("coco", "coco", crop_size=crop).view("set", Record("a", 1, original), index, 0)
    height, width = view.resized_hw
    assert height <= 2 * crop[0] + 1 and width <= 2 * crop[1] + 1
    assert abs(height - original[0] * width / original[1]) <= max(1.0, 0.5 + 0.5 * original[0] / original[1])
    if height <= crop[0] and width <= crop[1]:
        assert view.valid_hw == view.resized_hw and view.crop_yx == (0, 0)


@settings(max_examples=30)
@given(crops, originals, st.integers(1, 3))
def test_test_crops_of_clips_lie_within_their_frames(
    crop: tuple[int, int], original: tuple[int, int], crops_of_clip: int
) -> None:
    recipe = ClipsTimesCrops(name="t", clips=2, crops=crops_of_clip, crop_px=crop, short_px=min(crop))
    for index in range(recipe.fixed_count or 0):
        view = recipe.view("set", Record("a", 1, original, frames=80, fps=25.0, decoder="pyav"), index, 0)
        assert view.valid_hw == view.padded_hw == view.crop_hw == crop
        assert all(s >= c for s, c in zip(view.resized_hw, crop, strict=True))


@settings(max_examples=30)
@given(crops, originals)
def test_sliding_windows_cover_the_image_and_no_more(
    crop: tuple[int, int], original: tuple[int, int]
) -> None:
    recipe, record = view_recipe("ade20k", "slide", crop_size=crop), Record("a", 1, original)
    count = views_of(recipe, record, recipe.fixed_count or 1)
    views = [recipe.view("set", record, index, 0) for index in range(count)]
    seen_px = np.zeros(views[0].resized_hw, np.int64)
    for view in views:
        (y, x), (height, width) = view.crop_yx, view.valid_hw
        assert view.padded_hw == crop and view.resized_hw == seen_px.shape
        seen_px[y : y + height, x : x + width] += 1
    assert seen_px.min() >= 1 and count <= (recipe.fixed_count or 1)


@settings(max_examples=30)
@given(crops, st.integers(0, 30))
def test_masks_and_boxes_follow_the_pixels(crop: tuple[int, int], index: int) -> None:
    """A white rectangle on black: the pixels of its mask are the white ones of the view."""
    original = (60, 90)
    image = np.zeros((*original, 3), np.uint8)
    image[15:45, 30:75] = 255
    shape = Polygons((np.array([[30, 15], [75, 15], [75, 45], [30, 45]], np.float64),))
    view = view_recipe("coco", "coco", crop_size=crop).view("set", Record("a", 1, original), index, 0)
    found = seen(shape, original, view)
    drawn = np.zeros(crop, np.bool_)
    if found is not None:
        height, width = found.mask.shape
        drawn[found.y : found.y + height, found.x : found.x + width] = found.mask
    white = view.apply_image(image)[..., 0] > 127
    border = binary_dilation(white, iterations=2) & ~binary_erosion(white, iterations=2, border_value=1)
    assert (drawn == white)[~border].all()  # outlines are rounded, and pixels of an edge are grey


def test_identities_of_squares_are_as_ever_and_others_name_both_sides() -> None:
    assert (
        choose("ade20k", crop_size="64x64").recipe.identity()
        == view_recipe("ade20k", "ade20k", crop_size=64).identity()
    )
    wide = view_recipe("ade20k", "ade20k", crop_size="64x128").identity()
    assert wide["crop_px"] == [64, 128] and wide["scale_px"] == [256, 64]
    assert view_recipe("ade20k", "ade20k", crop_size="128x64").identity()["crop_px"] == [128, 64]
    jitter = view_recipe("coco", "coco", crop_size="64x128").identity()
    assert (jitter["crop_px"], jitter["scale_px"]) == ([64, 128], [128, 64])
    clips = view_recipe("k400", "k400", crop_size="64x128").identity()
    assert (clips["crop_px"], clips["scale_px"], clips["short_px"]) == ([64, 128], [128, 64], 73)
    assert "crop_px" not in view_recipe("k400", "k400").identity()
    with pytest.raises(ValueError, match="crop_size 64x100: expected a multiple of 32 px up to"):
        view_recipe("ade20k", "ade20k", crop_size="64x100")
