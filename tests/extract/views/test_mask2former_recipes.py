"""`ade20k-m2f`: parts of Mask2Former's mapper beside what detectron2 computes, and as a store's recipe."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.datasets import view_recipe
from extract.sources.record import Record
from extract.views.mask2former_recipes import Mask2FormerCrops, shortest_edge
from extract.views.view import View
from pipelines.__main__ import main
from stores.reading.reader import open_store
from tests.extract.datasets.made_ade20k import made_image, made_labels, write_folder

RECIPE = view_recipe("ade20k", "ade20k-m2f")


def record(hw: tuple[int, int], key: str = "key") -> Record:
    return Record(key, 0, hw)


def detectron2_shape(oldh: int, oldw: int, short_edge_length: int, max_size: int) -> tuple[int, int]:
    """detectron2 data/transforms/augmentation_impl.py, ResizeShortestEdge.get_output_shape, as it stands."""
    h, w = oldh, oldw
    size = short_edge_length * 1.0
    scale = size / min(h, w)
    if h < w:
        newh, neww = size, scale * w
    else:
        newh, neww = scale * h, size
    if max(newh, neww) > max_size:
        scale = max_size * 1.0 / max(newh, neww)
        newh = newh * scale
        neww = neww * scale
    neww = int(neww + 0.5)
    newh = int(newh + 0.5)
    return (newh, neww)


@given(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), st.integers(0, 15), st.sampled_from([512, 640]))
@settings(max_examples=300, deadline=None)
def test_sizes_are_detectrons(hw, step, base) -> None:
    recipe = Mask2FormerCrops(crop_px=base)
    short_px = [int(x * 0.1 * base) for x in range(5, 21)][step]
    assert recipe.short_sides_px[step] == short_px and recipe.long_px == 4 * base
    expected = tuple(max(1, side) for side in detectron2_shape(*hw, short_px, 4 * base))
    assert shortest_edge(hw, short_px, 4 * base) == expected


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.integers(0, 2**40))
@settings(max_examples=80, deadline=None)
def test_a_view_is_one_of_the_sixteen_sizes_and_replays(hw, seed) -> None:
    view = RECIPE.view("ade20k", record(hw), 3, seed)
    sizes = {shortest_edge(hw, short_px, 2048) for short_px in RECIPE.short_sides_px}
    assert view.resized_hw in sizes and view.padded_hw == (512, 512)
    assert view.valid_hw == tuple(min(512, side) for side in view.resized_hw)
    assert View.from_params(view.to_params()) == view
    assert not RECIPE.looks_at_truth and view == RECIPE.view(
        "ade20k", record(hw), 3, seed, made_labels(1, (64, 64))
    )


def test_every_size_crop_and_hue_comes_up_about_as_often() -> None:
    """4800 draws: each of 16 sizes 300 times (s.e. 17), each of 37 hues 65 times (s.e. 8), +18 among them."""
    views = [RECIPE.view("ade20k", record((1024, 1024)), index, 0) for index in range(4800)]
    sizes = Counter(min(view.resized_hw) for view in views)
    assert sorted(sizes) == sorted(RECIPE.short_sides_px) and min(sizes.values()) > 230
    hues = Counter(view.colour.hue for view in views if view.colour.hue)
    assert sorted(hues) == [hue for hue in range(-18, 19) if hue] and min(hues.values()) > 30
    assert 2250 < sum(view.flip for view in views) < 2550
    corners = np.array([view.crop_yx for view in views if view.resized_hw == (1024, 1024)])
    assert corners.min() < 15 and corners.max() > 497 and corners.max() <= 512
    fixed = [view.crop_yx for view in views if min(view.resized_hw) <= 512]
    assert set(fixed) == {(0, 0)}


def test_colours_before_or_after_the_flip_and_the_crop_are_the_same() -> None:
    """Mask2Former crops, colours and then flips; a view flips before it colours."""
    rgb = made_image(4, (300, 400))
    view = next(
        view
        for index in range(100)
        if (view := RECIPE.view("ade20k", record((300, 400)), index, 0)).flip and view.colour.hue
    )
    whole = View(resized_hw=view.resized_hw, valid_hw=view.resized_hw, padded_hw=view.resized_hw)
    (y, x), (height, width) = view.crop_yx, view.valid_hw
    theirs = view.colour.apply(whole.apply_image(rgb)[y : y + height, x : x + width])[:, ::-1]
    assert np.array_equal(view.apply_image(rgb)[:height, :width], theirs)


@pytest.mark.parametrize(
    ("sizes", "message"), [({"crop_size": 100}, "multiple of 32"), ({"short_side": 1}, "short side")]
)
def test_impossible_sizes_are_refused(sizes, message) -> None:
    with pytest.raises(ValueError, match=message):
        view_recipe("ade20k", "ade20k-m2f", **sizes)


def test_a_store_of_these_views(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path, training=4, validation=1)
    words = shlex.split(
        f"--dataset ade20k --data {data} --model swinv2-nano --weights random:0 --crop-size 64 --device cpu"
        f" --view-recipe ade20k-m2f --views 2 --stores {tmp_path / 'features'}"
    )
    assert main(["extract", *words, "--json"]) == 0
    out = capsys.readouterr().out
    assert "2 views each (ade20k-m2f)" in out
    store = open_store(json.loads(out.splitlines()[-1])["store"])
    assert store.identity["views"]["recipe"] == "ade20k-m2f"
    assert store.identity["views"]["short_sides_px"][0] == 32 and set(store.bins) == {"64x64"}
    assert main(["plan", *words, "--split", "validation", "--json"]) == 2, "test splits have their own views"
