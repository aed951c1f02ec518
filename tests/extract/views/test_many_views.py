"""Views of many records at a time are those that are drawn one by one, number by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.datasets import view_recipe
from extract.sources.record import Record
from extract.views.fitted_views import fitted_to
from extract.views.seeded_draws import Draws, ManyViewDraws, ViewDraws

KEYS = st.lists(
    st.one_of(st.from_regex(r"[0-9a-zA-Z_.-]{1,12}", fullmatch=True), st.text(min_size=1, max_size=6)),
    min_size=1,
    max_size=8,
).map(lambda keys: [key.encode(errors="replace").decode() for key in keys])
RECIPES = {
    "coco": ("coco", "coco", {}),
    "coco, crop 256x512": ("coco", "coco", {"crop_size": (256, 512)}),
    "ade20k": ("ade20k", "ade20k", {}),
    "ade20k, short side 300": ("ade20k", "ade20k", {"crop_size": 256, "short_side": 300}),
    "ade20k-m2f": ("ade20k", "ade20k-m2f", {}),
}


@pytest.fixture(params=RECIPES, scope="module")
def recipe(request: pytest.FixtureRequest) -> Any:
    dataset, name, sizes = RECIPES[request.param]
    return view_recipe(dataset, name, **sizes)


@settings(max_examples=25)
@given(
    keys=KEYS,
    sizes=st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=8, max_size=8),
    index=st.integers(0, 300),
    seed=st.integers(-3, 1 << 40),
)
def test_every_parameter_is_that_of_the_view_alone(
    recipe: Any, keys: list[str], sizes: list[tuple[int, int]], index: int, seed: int
) -> None:
    sizes = sizes[: len(keys)]
    found = recipe.drawn("made", keys, np.array(sizes), index, seed)
    records = [Record(key, 1, hw) for key, hw in zip(keys, sizes, strict=True)]
    expected = [recipe.view("made", record, index, seed).to_params() for record in records]
    assert found.dtype == np.float64 and found.tobytes() == np.stack(expected).tobytes()


def test_views_for_a_backbone_are_drawn_so_too(recipe: Any) -> None:
    fitted: Any = fitted_to(recipe, 14, "a ViT", interpolation="bicubic")
    sizes = np.array([(480, 640), (33, 2000)])
    found = fitted.drawn("made", ["a", "b"], sizes, 1, 7)
    expected = [
        fitted.view("made", Record(key, 1, tuple(hw)), 1, 7).to_params()
        for key, hw in zip("ab", sizes.tolist(), strict=True)
    ]
    assert np.array_equal(found, expected)


def test_test_views_that_are_fitted_are_drawn_one_by_one() -> None:
    fitted: Any = fitted_to(view_recipe("coco", "single"), 14, "a ViT", interpolation="bicubic")
    assert fitted.drawn is None


@given(
    counts=st.lists(st.integers(1, (1 << 31) - 1), min_size=3, max_size=3),
    keep=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_draws_of_some_records_leave_the_others_as_they_were(counts: list[int], keep: list[bool]) -> None:
    keys, which = ["a", "b", "c"], np.array(keep)
    many = ManyViewDraws("made", keys, 0, 0)("crop")
    each: list[Draws] = [ViewDraws("made", key, 0, 0)("crop") for key in keys]
    found = many.integer(np.array(counts), which)
    for number, (draws, count) in enumerate(zip(each, counts, strict=True)):
        if keep[number]:
            assert found[number] == draws.integer(count)
    assert many.uniform(-2.5, 3.0).tolist() == [draws.uniform(-2.5, 3.0) for draws in each]
    assert many.happens(0.5).tolist() == [draws.happens(0.5) for draws in each]
