"""Depth metrics and merged windows by plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from extract.sources.record import Record
from extract.views.depth.recipes import SlideFlip, WholePart
from extract.views.view import VIEW_PARAMS
from pipelines.metrics.depth import NAMES, counted_pixels, crop_bounds, depth_errors
from pipelines.metrics.depth_windows import merged_views

Generator = np.random.Generator


def test_errors_by_loops() -> None:
    draws = np.random.default_rng(0)
    truth, predicted = draws.uniform(0.5, 12, (9, 13)), draws.uniform(0.5, 9, (9, 13))
    truth[draws.random((9, 13)) < 0.3] = 0
    counted = counted_pixels(torch.from_numpy(truth), "none", 1e-3, 10.0)
    pairs = [(p, t) for p, t in zip(predicted.flat, truth.flat, strict=True) if 1e-3 < t < 10]
    n = len(pairs)
    d = [math.log(p) - math.log(t) for p, t in pairs]
    expected = {
        "RMSE": math.sqrt(sum((p - t) ** 2 for p, t in pairs) / n),
        "AbsRel": sum(abs(p - t) / t for p, t in pairs) / n,
        "SqRel": sum((p - t) ** 2 / t for p, t in pairs) / n,
        "RMSElog": math.sqrt(sum(x * x for x in d) / n),
        "log10": sum(abs(math.log10(p) - math.log10(t)) for p, t in pairs) / n,
        "SILog": math.sqrt(sum(x * x for x in d) / n - 0.5 * (sum(d) / n) ** 2),
        **{f"d{k}": sum(max(p / t, t / p) < 1.25**k for p, t in pairs) / n for k in (1, 2, 3)},
    }
    found = depth_errors(torch.from_numpy(predicted), torch.from_numpy(truth), counted)
    assert dict(zip(NAMES, found.tolist(), strict=True)) == pytest.approx(expected, rel=1e-9)


def test_an_image_without_depth_has_no_score() -> None:
    zero = torch.zeros(4, 4)
    assert depth_errors(zero + 1, zero, counted_pixels(zero, "none", 1e-3, 10.0)).isnan().all()


def test_crops_of_the_papers() -> None:
    truth = torch.full((480, 640), 5.0)
    inside = counted_pixels(truth, "eigen", 1e-3, 10.0)
    assert inside.sum() == (471 - 45) * (601 - 41) and inside[45, 41] and not inside[44, 41]
    assert crop_bounds("garg", (352, 1216)) == (
        int(0.40810811 * 352), int(0.99189189 * 352), int(0.03594771 * 1216), int(0.96405229 * 1216),
    )  # fmt: skip
    with pytest.raises(ValueError, match="'centre': expected one of none, eigen, garg"):
        crop_bounds("centre", (480, 640))


@pytest.mark.parametrize(
    ("recipe", "hw"),
    [
        (SlideFlip(name="s", windows=2), (480, 640)),
        (SlideFlip(name="s", windows=16, part_hw=(352, 1216)), (375, 1242)),
        (SlideFlip(name="s"), (90, 64)),
        (SlideFlip(name="s", short_px=64), (90, 300)),
        (WholePart(name="s", part_hw=(352, 1216)), (370, 1224)),
    ],
)
def test_windows_average_as_a_loop_over_pixels(recipe: SlideFlip | WholePart, hw: tuple[int, int]) -> None:
    """Each window predicts a number of its own in each pixel; mirrored ones are mirrored back."""
    record = Record("a", 1, hw)
    count = recipe.views_of(record) if isinstance(recipe, SlideFlip) else 1
    views = [recipe.view("", record, number, 0) for number in range(count)]
    draws = np.random.default_rng(1)
    maps = [draws.uniform(1, 9, view.valid_hw).astype(np.float32) for view in views]
    total, seen = np.zeros(views[0].resized_hw), np.zeros(views[0].resized_hw)
    for view, depth in zip(views, maps, strict=True):
        (y, x), (height, width) = view.crop_yx, view.valid_hw
        for row in range(height):
            for column in range(width) if height * width < 5000 else [slice(None)]:
                shown = depth[row, ::-1] if view.flip else depth[row]
                at = x + column if isinstance(column, int) else slice(x, x + width)
                total[y + row, at] += shown[column]
                seen[y + row, at] += 1
    params = [dict(zip(VIEW_PARAMS, view.to_params().tolist(), strict=True)) for view in views]
    found = merged_views(zip(params, map(torch.from_numpy, maps), strict=True), hw)
    (top, bottom, left, right), mean_YX = found
    assert mean_YX.shape == (bottom - top, right - left)
    if views[0].resized_hw == hw:
        assert (seen[top:bottom, left:right] > 0).all() and seen.sum() == seen[top:bottom, left:right].sum()
        expected = total[top:bottom, left:right] / seen[top:bottom, left:right]
        np.testing.assert_allclose(mean_YX.numpy(), expected, rtol=1e-5)
    else:
        assert (top, bottom, left, right) == (0, hw[0], 0, hw[1])


def test_a_missing_window_is_an_error() -> None:
    record, recipe = Record("a", 1, (480, 900)), SlideFlip(name="s", windows=2)
    view = recipe.view("", record, 0, 0)
    last = recipe.view("", Record("a", 1, (480, 1500)), recipe.views_of(Record("a", 1, (480, 1500))) - 1, 0)
    params = [dict(zip(VIEW_PARAMS, each.to_params().tolist(), strict=True)) for each in (view, last)]
    params[0]["resized_x"] = 1500.0
    with pytest.raises(ValueError, match="do not cover"):
        merged_views([(each, torch.ones(480, 480)) for each in params], (480, 1500))
