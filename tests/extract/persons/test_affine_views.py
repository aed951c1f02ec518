"""Affine views of persons: pixels by a plain loop, keypoints that move alike, exact replay."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from extract.datasets.persons.coco_rule import COCO_KEYPOINTS
from extract.datasets.persons.person_data import view_keypoints
from extract.sources.record import Record
from extract.views.persons.affine_map import applied, inverse
from extract.views.persons.affine_view import AFFINE_PARAMS, AffineView
from extract.views.persons.crop_changes import CropChanges, draw_changes
from extract.views.persons.person_box import PersonRecord, Region, half_region, region_of, udp_matrix
from extract.views.persons.person_recipes import VIEW_RECIPES, truncated_normal, view_of
from extract.views.seeded_draws import Draws
from extract.views.view import View
from pipelines.metrics.pose_places import places_in_source

HW = (120, 160)
CROP = 96
BOX = (40.0, 20.0, 60.0, 70.0)
PERSON = PersonRecord("a_1", 1, HW, box=BOX)


def drawn_view(rotation: float, scale: float, shift: tuple[float, float], flip: bool) -> AffineView:
    region = region_of(BOX).moved(*shift).scaled(scale)
    return view_of(PERSON, region, CROP, rotation_deg=rotation, flip=flip)


def bilinear_by_loops(rgb: np.ndarray, view: AffineView) -> np.ndarray:
    """Each pixel of the crop looked up in the source, between the centres of four pixels; black outside."""
    back, out = inverse(view.matrix), np.zeros((*view.valid_hw, 3))
    for row in range(view.valid_hw[0]):
        for column in range(view.valid_hw[1]):
            x0 = view.valid_hw[1] - 1 - column if view.flip else column
            ((x, y),) = applied(back, np.array([[float(x0), float(row)]]))
            if not (-0.5 <= x < rgb.shape[1] - 0.5 and -0.5 <= y < rgb.shape[0] - 0.5):
                continue
            left, top = math.floor(x), math.floor(y)
            for dy, wy in ((0, 1 - (y - top)), (1, y - top)):
                for dx, wx in ((0, 1 - (x - left)), (1, x - left)):
                    at = min(max(top + dy, 0), rgb.shape[0] - 1), min(max(left + dx, 0), rgb.shape[1] - 1)
                    out[row, column] += wy * wx * rgb[at]
    return out


@pytest.mark.parametrize(
    "view",
    [
        drawn_view(0, 1.0, (0, 0), False),
        drawn_view(33, 0.6, (0.1, -0.1), True),
        drawn_view(-40, 1.5, (0.1, 0.1), False),
    ],
    ids=["plain", "turned, flipped", "beyond the image"],
)
def test_pixels_by_loops(view: AffineView) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)
    expected = bilinear_by_loops(rgb, view)
    # Pillow ends in uint8; at the very border it may decide otherwise which side a sample lies on.
    assert (np.abs(view.apply_image(rgb) - expected).max(-1) <= 1).mean() > 0.999


@settings(max_examples=40, deadline=None)
@given(
    rotation=st.floats(-40, 40),
    scale=st.floats(0.5, 1.5),
    shift=st.tuples(st.floats(-0.16, 0.16), st.floats(-0.16, 0.16)),
    flip=st.booleans(),
    place=st.tuples(st.floats(0.15, 0.85), st.floats(0.15, 0.85)),
)
def test_a_replayed_view_moves_pixels_and_keypoints_alike(
    rotation: float, scale: float, shift: tuple[float, float], flip: bool, place: tuple[float, float]
) -> None:
    """The centre of a soft spot in the source lies, in the view, where its keypoint does."""
    view = drawn_view(rotation, scale, shift, flip)
    wanted = np.array([[place[0] * CROP, place[1] * CROP]])
    ((x, y),) = view.points_in_source(wanted)
    assume(min(x, y, HW[1] - 1 - x, HW[0] - 1 - y) >= 10)  # else it is cut off by an edge of the source
    rows, columns = np.indices(HW)
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
    rgb = np.rint(255 * spot).astype(np.uint8)[..., None].repeat(3, 2)
    again = AffineView.from_params(view.to_params())
    assert again == view
    pixels = again.apply_image(rgb)[..., 0].astype(float)
    near = np.hypot(*(np.indices(pixels.shape) - wanted[0][::-1, None, None])) < 0.14 * CROP
    weights = np.where(near, pixels, 0) ** 2
    found = [(weights * axis).sum() / weights.sum() for axis in np.indices(pixels.shape)[::-1]]
    assert np.abs(found - wanted[0]).max() < 0.25
    assert np.allclose(view.apply_points(np.array([[x, y]])), wanted, atol=1e-9)
    params = dict(zip(AFFINE_PARAMS, view.to_params().tolist(), strict=True))
    assert np.allclose(places_in_source(params, CROP, wanted), [[x, y]], atol=1e-9)


def test_edges_of_the_box_meet_the_outer_pixel_centres() -> None:
    region = Region((50.0, 40.0), (40.0, 20.0))
    matrix = udp_matrix(region, 0.0, (64, 128))
    corners = applied(matrix, np.array([[30.0, 30.0], [70.0, 50.0]]))
    assert np.allclose(corners, [[0, 0], [127, 63]])
    turned = applied(udp_matrix(region, 90.0, (64, 128)), np.array([[50.0, 40.0]]))
    assert np.allclose(turned, [[63.5, 31.5]])  # the centre stays


def test_boxes_are_padded_to_the_aspect_of_the_crop() -> None:
    assert region_of((0, 0, 10, 30)).of_aspect((256, 256)).size == (37.5, 37.5)
    assert region_of((0, 0, 30, 10)).of_aspect((256, 128)).size == (37.5, 75.0)
    with pytest.raises(ValueError, match="of some area"):
        region_of((0, 0, 0, 10))


def test_mirrored_rows_are_mirror_images_with_sides_swapped() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*HW, 3), dtype=np.uint8)
    recipe = VIEW_RECIPES["flip"](CROP, None)
    plain, mirrored = (recipe.view("coco_pose", PERSON, number, 0) for number in range(2))
    assert isinstance(plain, AffineView) and isinstance(mirrored, AffineView)
    assert np.array_equal(mirrored.apply_image(rgb), plain.apply_image(rgb)[:, ::-1])
    keypoints = np.column_stack([np.random.default_rng(2).uniform(20, 90, (17, 2)), np.full(17, 2.0)])
    keypoints[4] = 0
    a, b = (view_keypoints(keypoints, view, COCO_KEYPOINTS) for view in (plain, mirrored))
    assert np.allclose(b[5, 0], CROP - 1 - a[6, 0]) and np.allclose(b[5, 1], a[6, 1])
    assert not a[4].any() and not b[3].any()
    with pytest.raises(ValueError, match="not 3"):
        recipe.view("coco_pose", PERSON, 2, 0)


def test_seeded_views_replay_and_follow_their_ranges() -> None:
    recipe = VIEW_RECIPES["pose-full"](CROP, None)
    views = [recipe.view("coco_pose", PERSON, number, 5) for number in range(200)]
    assert views == [recipe.view("coco_pose", PERSON, number, 5) for number in range(200)]
    assert views[0] != recipe.view("coco_pose", PERSON, 0, 6)
    matrices = np.array([view.matrix for view in views if isinstance(view, AffineView)])
    turns = np.degrees(np.arctan2(matrices[:, 3], matrices[:, 0]))
    assert 0.5 < (turns != 0).mean() < 0.7 and 30 < np.abs(turns).max() <= 40
    sides = (CROP - 1) / np.hypot(matrices[:, 0], matrices[:, 3]) / (70 * 1.25)
    assert 0.5 <= sides.min() < 0.6 and 1.4 < sides.max() <= 1.5
    assert 0.4 < np.mean([view.flip for view in views]) < 0.6
    rgb = np.random.default_rng(3).integers(0, 256, (*HW, 3), dtype=np.uint8)
    for view in views[:3]:
        assert np.array_equal(
            AffineView.from_params(view.to_params()).apply_image(rgb), view.apply_image(rgb)
        )


def test_half_bodies_by_hand() -> None:
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[:9] = [[10 * n, 5 * n, 2] for n in range(9)]
    upper = COCO_KEYPOINTS.upper_body
    assert half_region(keypoints, upper, True) == Region((40.0, 20.0), (120.0, 60.0))  # no lower ones
    keypoints[11:15] = [[100 + n, 50 + n, 1] for n in range(4)]
    assert half_region(keypoints, upper, False) == Region((101.5, 51.5), (4.5, 4.5))
    keypoints[:5] = 0
    assert half_region(keypoints, upper, True) is None  # 8 visible
    recipe = VIEW_RECIPES["pose"](CROP, None)
    keypoints[:] = [[10 * n, 5 * n, 2] for n in range(17)]
    person = PersonRecord("a_1", 1, HW, box=BOX, keypoints=keypoints, upper_body=upper)
    halves = [recipe.view("coco_pose", person, number, 0) for number in range(300)]
    assert 0.2 < np.mean([isinstance(v, AffineView) and v.half_body for v in halves]) < 0.4


def test_truncated_normal_is_one() -> None:
    draws = Draws("t")
    found = np.array([truncated_normal(draws) for _ in range(4000)])
    assert found.min() >= -1 and found.max() <= 1
    # The deviation of a standard normal cut at one deviation is 0.5396.
    assert abs(found.std() - 0.5396) < 0.02 and abs(found.mean()) < 0.03


def test_colours_and_holes() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert CropChanges().apply(rgb) is rgb
    dark = CropChanges(brightness=0.5).apply(rgb)
    assert np.abs(dark.astype(int) - rgb // 2).max() <= 1
    grey = CropChanges(saturation=0.0).apply(rgb)
    assert (np.ptp(grey, axis=2) == 0).all()
    red = CropChanges(hue=256 // 3).apply(np.full((4, 4, 3), (200, 0, 0), np.uint8))
    assert red[0, 0, 1] > 190 and red[0, 0, 0] < 10  # a third of the circle on: green
    holes = CropChanges(holes=True).apply(rgb)
    assert (holes[:2, :2] == 0).all() and np.array_equal(holes[2:4], rgb[2:4])
    drawn = [draw_changes(Draws("c", number)) for number in range(100)]
    assert 0.05 < np.mean([each.holes for each in drawn]) < 0.4
    assert CropChanges.from_params(drawn[0].to_params()) == drawn[0]


def test_impossible_views_are_refused() -> None:
    with pytest.raises(ValueError, match="no inverse"):
        AffineView(
            resized_hw=(32, 32), valid_hw=(32, 32), padded_hw=(32, 32), matrix=(0, 0, 0, 0, 0, 0), box=BOX
        )
    with pytest.raises(ValueError, match="expected 21"):
        AffineView.from_params([1.0])
    with pytest.raises(ValueError, match="its one size"):
        VIEW_RECIPES["flip"](64, 96)


def test_a_record_without_a_box_is_a_person_who_fills_it() -> None:
    view = VIEW_RECIPES["single"](64, None).view("", Record("a", 1, (30, 60)), 0, 0)
    assert isinstance(view, AffineView) and view.box == (0, 0, 60, 30)
    assert isinstance(view, View) and view.apply_picture(Image.new("RGB", (60, 30), "white")).any()
