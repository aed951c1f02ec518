"""A replayed view moves pixels, boxes, polygons and run lengths alike, to the borders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from extract.datasets import view_recipe
from extract.sources.record import Record
from extract.views.colour import Colour
from extract.views.instance_targets import Survey, target_specs, targets
from extract.views.instances import Instances, Polygons, Rle, Seen, Shape, packed, seen, unpacked
from extract.views.view import View
from stores.format.plan import RaggedTarget

SIZES = st.tuples(st.integers(8, 90), st.integers(8, 90))
SEEDS = st.integers(0, 2**40)
RECIPES = st.sampled_from(
    [
        view_recipe("coco", "coco", crop_size=64),
        view_recipe("coco", "coco", crop_size=32),
        view_recipe("coco", "single", short_side=48),
        view_recipe("coco", "ms-flip", short_side=48),
    ]
)


def made_view(recipe, hw: tuple[int, int], seed: int) -> View:
    return recipe.view("coco", Record("key", 1, hw), seed % (recipe.fixed_count or 9), seed)


def star(hw: tuple[int, int], seed: int) -> np.ndarray:
    """A polygon that does not cross itself, float64 (points, 2), x y; it may reach over the border."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
    radii = rng.uniform(0.1, 0.8, len(angles)) * min(hw)
    centre = rng.uniform(0, 1, 2) * (hw[1], hw[0])
    return centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def octagon(hw: tuple[int, int], seed: int) -> np.ndarray:
    """A polygon without thin ends, which pixels of any size show; it may reach over the border."""
    rng = np.random.default_rng(seed)
    angles = np.arange(8) * np.pi / 4 + rng.uniform(0, 1)
    centre, radius = rng.uniform(0, 1, 2) * (hw[1], hw[0]), rng.uniform(0.3, 0.7) * min(hw)
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def blob(hw: tuple[int, int], seed: int) -> tuple[np.ndarray, Rle]:
    """A bitmap of blocks, uint8 (H, W), and its run lengths."""
    rng = np.random.default_rng(seed)
    blocks = (rng.random((4, 4)) < 0.4).astype(np.uint8)
    bitmap = np.kron(blocks, np.ones((hw[0] // 4 + 1, hw[1] // 4 + 1), np.uint8))[: hw[0], : hw[1]]
    return bitmap, Rle(coco_mask.encode(np.asfortranarray(bitmap))["counts"], hw)


def canvas(found: Seen | None, view: View) -> np.ndarray:
    """The instance as a bitmap of the whole view."""
    whole = np.zeros(view.padded_hw, bool)
    if found is not None:
        h, w = found.mask.shape
        whole[found.y : found.y + h, found.x : found.x + w] = found.mask
    return whole


def source_points(view: View, hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """x and y in the original image of the centres of the view's pixels, (valid h, valid w) each."""
    y, x = np.mgrid[: view.valid_hw[0], : view.valid_hw[1]].astype(float)
    if view.flip:
        x = view.valid_hw[1] - 1 - x
    y, x = y + view.crop_yx[0] + 0.5, x + view.crop_yx[1] + 0.5
    return x * hw[1] / view.resized_hw[1], y * hw[0] / view.resized_hw[0]


def inside(polygon: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Even-odd rule, edge by edge."""
    found = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (ay > y) != (by > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            found ^= crosses & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    return found


def distance(polygon: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """To the nearest edge."""
    nearest = np.full(x.shape, np.inf)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        (dx, dy), length = b - a, max(float(((b - a) ** 2).sum()), 1e-12)
        t = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / length, 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - a[0] - t * dx, y - a[1] - t * dy))
    return nearest


def valid(view: View) -> tuple[slice, slice]:
    return slice(view.valid_hw[0]), slice(view.valid_hw[1])


@given(RECIPES, SIZES, SEEDS)
@settings(max_examples=250, deadline=None)
def test_polygons_fill_the_pixels_whose_sources_they_hold(recipe, hw, seed) -> None:
    view, polygon = made_view(recipe, hw, seed), star(hw, seed)
    whole = canvas(seen(Polygons((polygon,)), hw, view), view)
    scale = np.array([view.resized_hw[1] / hw[1], view.resized_hw[0] / hw[0]])
    x, y = source_points(view, hw)
    far = distance(polygon * scale, x * scale[0], y * scale[1]) > 1.2  # pixels of the view; it rounds by less
    assert np.array_equal(whole[valid(view)][far], inside(polygon, x, y)[far])
    padding = np.ones(view.padded_hw, bool)
    padding[valid(view)] = False
    assert not whole[padding].any()


@given(RECIPES, SIZES, SEEDS)
@settings(max_examples=200, deadline=None)
def test_run_lengths_take_the_source_pixel_under_each_centre(recipe, hw, seed) -> None:
    view, (bitmap, rle) = made_view(recipe, hw, seed), blob(hw, seed)
    x, y = source_points(view, hw)
    expected = bitmap[np.floor(y + 1e-9).astype(int), np.floor(x + 1e-9).astype(int)] > 0
    assert np.array_equal(canvas(seen(rle, hw, view), view)[valid(view)], expected)


@given(RECIPES, SIZES, SEEDS, st.booleans())
@settings(max_examples=200, deadline=None)
def test_masks_lie_on_the_pixels_that_were_painted(recipe, hw, seed, as_polygon) -> None:
    """The mask, painted white into the image, is white where the view has it: nothing is shifted."""
    view = made_view(recipe, hw, seed)
    if as_polygon:
        shape: Shape = Polygons((octagon(hw, seed),))
        bitmap = coco_mask.decode({"size": list(hw), "counts": shape.rle(hw)})
    else:
        bitmap, shape = blob(hw, seed)
    pixels = view.apply_image(np.repeat(255 * bitmap[:, :, None], 3, axis=2))[..., 0]
    whole = canvas(seen(shape, hw, view), view)
    cells = [max(1.0, hw[axis] / view.resized_hw[axis]) for axis in (0, 1)]  # what one view pixel averages
    if max(cells) > 2:  # so small a view is all border
        return
    margin = 1 + int(np.ceil(max(view.resized_hw[0] / hw[0], view.resized_hw[1] / hw[1])))
    white, black = ((pixels == value)[valid(view)] for value in (255, 0))
    found = whole[
        valid(view)
    ]  # a polygon may reach less than a pixel over the border, where nothing is painted
    assert found[_deep(white, margin, not as_polygon)].all()
    assert not found[_deep(black, margin, not as_polygon)].any()


def _deep(mask: np.ndarray, margin: int, reaches_border: bool) -> np.ndarray:
    """Pixels at least `margin` away from those that are not set, and from the border if it counts."""
    mode = "edge" if reaches_border else "constant"
    h, w = mask.shape
    for _ in range(margin):
        grown = np.pad(mask, 1, mode=mode)
        mask = np.all([grown[i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=0)
    return mask


@given(RECIPES, SIZES, SEEDS)
@settings(max_examples=150, deadline=None)
def test_boxes_are_tight_and_near_the_polygons_own(recipe, hw, seed) -> None:
    view, polygon = made_view(recipe, hw, seed), star(hw, seed)
    found = seen(Polygons((polygon,)), hw, view)
    if found is None:
        return
    rows, columns = np.nonzero(canvas(found, view))
    assert found.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    scale = np.array([view.resized_hw[1] / hw[1], view.resized_hw[0] / hw[0]])
    corner, size = np.array(view.crop_yx[::-1]), np.array(view.valid_hw[::-1])
    low, high = (np.clip(p * scale - corner, 0, size) for p in (polygon.min(axis=0), polygon.max(axis=0)))
    if view.flip:
        low[0], high[0] = size[0] - high[0], size[0] - low[0]
    assert (found.box[:2] >= low - 1.2).all() and (found.box[2:] <= high + 1.2).all()


@given(RECIPES, SIZES, SEEDS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_flipped_view_shows_the_mirrored_masks(recipe, hw, seed, as_polygon) -> None:
    view = replace(made_view(recipe, hw, seed), flip=False)
    shape = Polygons((star(hw, seed),)) if as_polygon else blob(hw, seed)[1]
    plain, flipped = (canvas(seen(shape, hw, v), v)[valid(v)] for v in (view, replace(view, flip=True)))
    assert np.array_equal(flipped, plain[:, ::-1])


@given(st.lists(SIZES, max_size=5), SEEDS)
@settings(max_examples=60, deadline=None)
def test_packed_masks_come_back(sizes, seed) -> None:
    rng = np.random.default_rng(seed)
    instances = [Seen(int(rng.integers(99)), int(rng.integers(99)), blob(hw, seed)[0]) for hw in sizes]
    arrays = packed(instances)
    assert arrays["mask_bits"].dtype == np.uint8 and arrays["mask_hw"].dtype == np.int32
    assert len(arrays["mask_bits"]) == sum(-(-h * w // 8) for h, w in sizes)
    for one, again in zip(instances, unpacked(arrays), strict=True):
        assert (one.y, one.x) == (again.y, again.x) and np.array_equal(one.mask, again.mask)


def made_instances(hw: tuple[int, int], seed: int) -> Instances:
    """Up to six instances, some crowds, some over the border."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 7))
    shapes: list[Shape] = []
    for number in range(count):
        parts = tuple(star(hw, seed + 10 * number + part) for part in range(rng.integers(1, 4)))
        shapes.append(Polygons(parts) if rng.random() < 0.6 else blob(hw, seed + number)[1])
    xywh = np.stack([np.array([0, 0, *rng.uniform(0.5, 20, 2)]) for _ in range(count)] or [np.zeros(4)])
    return Instances(
        original_hw=hw,
        image_id=seed,
        listed=(seed % 7, 7),
        xywh=xywh[:count],
        labels=rng.integers(0, 80, count),
        crowd=rng.random(count) < 0.3,
        area=rng.uniform(0, 99, count),
        ids=np.arange(count) + seed,
        shapes=tuple(shapes),
    )


@given(RECIPES, st.lists(st.tuples(SIZES, SEEDS), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_no_target_exceeds_the_cap_that_was_planned(recipe, made) -> None:
    truths = [made_instances(hw, seed) for hw, seed in made]
    views = [[made_view(recipe, hw, seed + index) for index in range(3)] for hw, seed in made]
    specs = target_specs(Survey.of(truths), True, [np.stack([v.to_params() for v in vs]) for vs in views])
    for truth, its_views in zip(truths, views, strict=True):
        for view in its_views:
            found = targets(truth, view)
            assert found.keys() == {spec.name for spec in specs}
            for spec in specs:
                array = found[spec.name]
                assert array.dtype == spec.dtype
                if isinstance(spec, RaggedTarget):
                    assert array.nbytes <= spec.cap_bytes, spec.name
                    assert spec.row_shape(truth.original_hw, array.nbytes) == array.shape
                else:
                    assert spec.row_shape(*view.padded_hw) == array.shape


def test_what_vanishes_is_dropped_and_small_boxes_are_not_trained_on() -> None:
    square = Polygons((np.array([[2, 2], [12, 2], [12, 12], [2, 12]], float),))
    corner = Polygons((np.array([[40, 40], [50, 40], [50, 50], [40, 50]], float),))
    truth = Instances(
        original_hw=(64, 64),
        image_id=7,
        listed=(0, 1),
        xywh=np.array(
            [[2, 2, 10, 10], [40, 40, 10, 10], [2, 2, 10, 10], [2, 2, 0.9, 10], [2, 2, 10, 10]], float
        ),
        labels=np.arange(5),
        crowd=np.array([False, False, True, False, False]),
        area=np.array([100.0, 100, 100, 100, 0]),
        ids=np.arange(5),
        shapes=(square, corner, square, square, square),
    )
    view = View(resized_hw=(64, 64), crop_yx=(4, 0), valid_hw=(32, 32), padded_hw=(32, 32))
    found = targets(truth, view)
    assert found["labels"].tolist() == [0]
    assert found["boxes"].tolist() == found["crowd_boxes"].tolist() == [[2, 0, 12, 8]]
    assert found["mask_yx"].tolist() == [[0, 2]] and found["mask_hw"].tolist() == [[8, 10]]
    assert len(found["original_ids"]) == 5 and found["original_crowd"].tolist() == [0, 0, 1, 0, 0]


@given(SIZES, SEEDS)
@settings(max_examples=100, deadline=None)
def test_large_scale_jittering_scales_to_a_tenth_up_to_twice_the_crop(hw, seed) -> None:
    recipe = view_recipe("coco", "coco", crop_size=1024)
    view = recipe.view("coco", Record("key", 1, hw), 0, seed)
    assert view.padded_hw == (1024, 1024) and 102 <= max(view.resized_hw) <= 2048
    assert view.valid_hw == tuple(min(1024, side) for side in view.resized_hw)
    ratio = (view.resized_hw[0] / hw[0]) / (view.resized_hw[1] / hw[1])
    assert abs(ratio - 1) < 0.51 / min(view.resized_hw) + 0.51 / max(view.resized_hw) + 1e-6
    assert view == View.from_params(view.to_params())


def test_jittering_fills_its_ranges() -> None:
    recipe = view_recipe("coco", "coco")
    views = [recipe.view("coco", Record(f"k{n}", 1, (480, 640)), n % 3, n // 500) for n in range(1000)]
    ratios = np.array([view.resized_hw[1] / 1024 for view in views])
    assert ratios.min() < 0.12 and ratios.max() > 1.97 and abs(ratios.mean() - 1.05) < 0.06
    assert 0.45 < np.mean([view.flip for view in views]) < 0.55
    room = [(v.crop_yx[1], v.resized_hw[1] - 1024) for v in views if v.resized_hw[1] > 1040]
    shares = np.array([x / most for x, most in room])
    assert shares.min() < 0.02 and shares.max() > 0.98 and abs(shares.mean() - 0.5) < 0.06


def test_views_are_those_of_revision_1() -> None:
    """Change these numbers only together with VIEWS_REVISION: stores are identified by it."""
    view = view_recipe("coco", "coco").view("coco", Record("000000000139", 1, (426, 640)), 4, 0)
    assert (view.resized_hw, view.crop_yx, view.flip) == ((1094, 1644), (6, 397), True)
    assert (view.valid_hw, view.padded_hw, view.colour) == ((1024, 1024), (1024, 1024), Colour())


def test_test_views_are_the_papers_sizes() -> None:
    single = view_recipe("coco", "single")
    sizes = {(480, 640): (800, 1067), (640, 426): (1202, 800), (200, 640): (417, 1333)}
    for hw, resized in sizes.items():
        view = single.view("coco", Record("k", 1, hw), 0, 5)
        assert view.resized_hw == resized and view.padded_hw == tuple(-(-side // 32) * 32 for side in resized)
    multi = view_recipe("coco", "ms-flip")
    views = [multi.view("coco", Record("k", 1, (480, 640)), index, 0) for index in range(multi.fixed_count)]
    assert [view.resized_hw[0] for view in views[::2]] == [
        600,
        800,
        1000,
        1200,
        1200,
    ]  # the last is 1600 long
    assert [view.flip for view in views] == [False, True] * 5


def test_recipes_refuse_what_they_cannot_have() -> None:
    with pytest.raises(ValueError, match="coco, single, ms-flip"):
        view_recipe("coco", "ade20k")
    with pytest.raises(ValueError, match="multiple of 32"):
        view_recipe("coco", "coco", crop_size=100)
    with pytest.raises(ValueError, match="no short_side"):
        view_recipe("coco", "coco", short_side=100)
    for name in ("single", "ms-flip"):
        with pytest.raises(ValueError, match="no crop_size"):
            view_recipe("coco", name, crop_size=128)
        with pytest.raises(ValueError, match="expected 2"):
            view_recipe("coco", name, short_side=1)
