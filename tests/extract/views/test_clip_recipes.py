"""Views of videos: which frames, which crops, and that numbers replay them."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.datasets import view_recipe
from extract.sources.record import Record
from extract.views.clip_recipes import (
    CLIP_PLACES,
    TEST_VIEWS,
    TRAINING_VIEWS,
    ClipsTimesCrops,
    RandomClips,
    frame_numbers,
    last_start,
)
from extract.views.clip_view import CLIP_FRAMES, CLIP_PARAMS, ClipView, clip_rule, render_clips, resized

sizes = st.tuples(st.integers(16, 400), st.integers(16, 400))
lengths = st.integers(1, 700)
recipes = st.sampled_from((*TRAINING_VIEWS, *TEST_VIEWS))


def record(hw: tuple[int, int], frames: int, key: str = "clip", decoder: str = "decord") -> Record:
    return Record(key, 1, hw, frames=frames, fps=25.0, decoder=decoder)


def sample_frames(frames: int, start: int) -> list[int]:
    """mmaction's SampleFrames with clip_len 16, frame_interval 4 and out_of_bound_opt loop, written out."""
    return [(start + 4 * number) % frames for number in range(16)]


def offsets_of_test_clips(frames: int, clips: int, places: str) -> list[int]:
    """SampleFrames._get_test_clips of Video Swin (db018fb) and of mmaction2 1.x (08de558), written out."""
    if places == "segments":
        average = (frames - 64 + 1) / float(clips)
        if frames <= 64 - 1:
            return [0] * clips
        return (np.arange(clips) * average + average / 2.0).astype(int).tolist()
    longest = max(frames - (15 * 4 + 1), 0)
    if clips > 1:
        return np.round(np.arange(clips) * (longest / float(clips - 1))).astype(int).tolist()
    return [longest // 2]


@settings(max_examples=60, deadline=None)
@given(name=recipes, hw=sizes, frames=lengths, number=st.integers(0, 11), seed=st.integers(0, 3))
def test_a_view_is_replayed_from_its_numbers(
    name: str, hw: tuple[int, int], frames: int, number: int, seed: int
) -> None:
    recipe = view_recipe("k400", name, crop_size=32)
    view = recipe.view("k400", record(hw, frames), number % (recipe.fixed_count or 12), seed)
    params = view.to_params()
    assert ClipView.from_params(params) == view and len(params) == len(CLIP_PARAMS)
    assert view.valid_hw == view.padded_hw == (32, 32)
    assert len(view.frames) == recipe.frames == CLIP_FRAMES
    assert all(0 <= frame < frames for frame in view.frames)
    assert list(view.frames) == sample_frames(frames, view.frames[0])
    if frames >= 64:
        assert {b - a for a, b in pairwise(view.frames)} == {4}, "long videos do not loop"


@settings(max_examples=60, deadline=None)
@given(frames=lengths, hw=sizes, clips=st.integers(1, 6), places=st.sampled_from(CLIP_PLACES))
def test_test_clips_lie_where_mmaction_lays_them(
    frames: int, hw: tuple[int, int], clips: int, places: str
) -> None:
    recipe = ClipsTimesCrops(name="4x3", clips=clips, crops=3, crop_px=32, short_px=32, places=places)
    views = [recipe.view("k400", record(hw, frames), number, 0) for number in range(3 * clips)]
    offsets = offsets_of_test_clips(frames, clips, places)
    assert [view.frames for view in views] == [
        tuple(sample_frames(frames, start)) for start in offsets for _ in range(3)
    ]


@settings(max_examples=60, deadline=None)
@given(hw=sizes)
def test_three_crops_cover_the_long_side(hw: tuple[int, int]) -> None:
    """mmaction's ThreeCrop: at 0, once and twice half of what is free along the long side, rounded down."""
    recipe = view_recipe("k400", "4x3", crop_size=64)
    crops = [recipe.view("k400", record(hw, 100), number, 0) for number in range(3)]
    (height, width), free = crops[0].resized_hw, max(crops[0].resized_hw) - 64
    assert min(height, width) == 64
    corners = [view.crop_yx for view in crops]
    along = [0, free // 2, 2 * (free // 2)]
    assert corners == ([(0, x) for x in along] if width >= height else [(y, 0) for y in along])
    single = view_recipe("k400", "single", crop_size=64).view("k400", record(hw, 100), 0, 0)
    assert (single.crop_yx, single.frames[0]) == (corners[1], 18)


@settings(max_examples=60, deadline=None)
@given(hw=sizes, seed=st.integers(0, 50))
def test_training_crops_have_the_asked_area_and_aspect(hw: tuple[int, int], seed: int) -> None:
    view = RandomClips(name="k400").view("k400", record(hw, 300), 0, seed)
    assert min(view.resized_hw) == 256
    (height, width), side = view.crop_hw, min(view.resized_hw)
    if view.crop_hw != (side, side):
        share = height * width / math.prod(view.resized_hw)
        rounding = (height + width + 1) / (height * width)
        assert 0.08 * (1 - rounding) <= share * (1 + rounding) and share <= 1
        assert 3 / 4 - 0.02 <= width / height <= 4 / 3 + 0.02


def test_views_of_a_record_differ_and_follow_from_the_seed() -> None:
    recipe = RandomClips(name="k400")
    views = [recipe.view("k400", record((240, 320), 300), number, 0) for number in range(200)]
    starts = [view.frames[0] for view in views]
    assert len(set(starts)) > 100 and min(starts) < 12 and max(starts) > 224
    assert max(starts) <= 236 < last_start(300)
    assert 70 < sum(view.flip for view in views) < 130
    again = recipe.view("k400", record((240, 320), 300), 7, 0)
    assert again == views[7] != recipe.view("k400", record((240, 320), 300), 7, 1)
    assert recipe.view("k400", record((240, 320), 300, key="other"), 7, 0) != views[7]


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_row_says_which_decoder_reads_it(decoder: str) -> None:
    for name in (*TRAINING_VIEWS, *TEST_VIEWS):
        view = view_recipe("k400", name).view("k400", record((48, 64), 70, decoder=decoder), 0, 0)
        params = dict(zip(CLIP_PARAMS, view.to_params().tolist(), strict=True))
        assert view.decoder == decoder and params["decoder"] == ("decord", "pyav").index(decoder)
        assert [params[f"frame_{number}"] for number in range(16)] == list(view.frames)


@settings(max_examples=60, deadline=None)
@given(numbers=st.lists(st.integers(0, 5), min_size=1, max_size=3), hw=st.tuples(*[st.integers(20, 60)] * 2))
def test_frames_shared_by_views_are_rendered_as_if_alone(numbers: list[int], hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    frames = {number: rng.integers(0, 256, (*hw, 3), dtype=np.uint8) for number in range(10)}
    recipe = view_recipe("k400", "k400", crop_size=32, short_side=24)
    views = [recipe.view("k400", record(hw, 10), number, 0) for number in numbers]
    for view, clip in zip(views, render_clips(frames.items(), views), strict=True):
        assert np.array_equal(clip, np.stack([view.apply_image(frames[number]) for number in view.frames]))


def test_a_frame_of_the_views_size_is_not_resampled() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    assert resized(rgb, (32, 40)) is rgb
    view = view_recipe("k400", "single", crop_size=32).view("k400", record((32, 40), 64), 0, 0)
    assert np.array_equal(view.apply_image(rgb), rgb[:, 4:36])


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("k400", {"crop_size": 100}, "crop_size 100: expected a multiple of 32"),
        ("k400", {"crop_size": 0}, "crop_size 0: expected a multiple of 32"),
        ("4x3", {"crop_size": 0}, "crop_size 0: expected a multiple of 32"),
        ("single", {"crop_size": 32, "short_side": 0}, "a short side of 0 px"),
        ("k400", {"short_side": 1}, "a short side of 1 px"),
        ("4x3", {"crop_size": 256, "short_side": 224}, "less than the crop's 256"),
        ("ms-flip", {}, "k400 has no view recipe 'ms-flip'; it has k400, 4x3, single, 4x3-ends, single-ends"),
    ],
)
def test_impossible_sizes_are_refused(name: str, options: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        view_recipe("k400", name, **options)


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("4x3", [29, 88, 148, 207]),
        ("single", [118]),
        ("4x3-ends", [0, 80, 159, 239]),
        ("single-ends", [119]),
    ],
)
def test_clips_of_ten_seconds(name: str, starts: list[int]) -> None:
    """300 frames; those of Video Swin by default, those of earlier versions under their own names."""
    recipe = view_recipe("k400", name)
    clip = record((240, 320), 300)
    views = [recipe.view("k400", clip, number, 0) for number in range(recipe.fixed_count or 0)]
    assert [view.frames[0] for view in views[:: len(views) // len(starts)]] == starts


def test_identities_of_earlier_versions_are_unchanged() -> None:
    """Word for word what their stores hold; a video's places are named where they are others."""
    earlier = {
        "recipe": "4x3",
        "scale_px": [224, 224],
        "short_px": 224,
        "frames": 16,
        "stride": 4,
        "clips": 4,
        "crops": 3,
        "replay": clip_rule(),
    }
    ends, segments = (view_recipe("k400", name).identity() for name in ("4x3-ends", "4x3"))
    assert list(ends.items()) == list(earlier.items())
    assert segments == {**earlier, "places": "segments"}
    one = {**earlier, "recipe": "single", "clips": 1, "crops": 1}
    assert view_recipe("k400", "single-ends").identity() == one
    golden = Path(__file__).parents[2] / "golden" / "run-linear" / "stores"
    stored = json.loads((golden / "k400-val-swinv2-nano-int8-97ce4afe" / "plan.json").read_text())
    found = stored["identity"]["views"]
    again = view_recipe("k400", "single-ends", crop_size=found["scale_px"][0]).identity()
    assert {name: found[name] for name in again} == again and "places" not in found


def test_numbers_of_frames_begin_again() -> None:
    assert frame_numbers(0, 1) == (0,) * 16
    assert frame_numbers(2, 7)[:4] == (2, 6, 3, 0)
