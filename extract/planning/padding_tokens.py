"""Padding tokens of a Swin's windows: how many of all tokens they are, and the windows that need none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from extract.backbones.levels import STRIDES_PX
from extract.backbones.registry import BackboneCard
from extract.swin.window_rule import HW, WindowRule, fit_windows, padded_grid
from stores.format.plan import Bin

SMALLEST_WINDOW = 4
"""In cells: attention in smaller ones sees next to nothing."""
_NO_SHIFT = (0, 0)


def padding_shares(card: BackboneCard, bins: Sequence[Bin]) -> tuple[float, ...]:
    """Of each Swin stage up to the last that a card needs: padding tokens as a share of all in its windows.

    Rows without a padded map have a share of 0. Empty for backbones without windows.

    Args:
        bins: padded sizes of the views, and how many rows have each.
    """
    return tuple(
        _share(card.window_rule, window, [(grid, b.rows) for b, grid in zip(bins, grids, strict=True)])
        for window, grids in zip(card.windows[: _stages(card)], _grids(card, bins), strict=False)
    )


def dividing_window(card: BackboneCard, bins: Sequence[Bin]) -> int | list[int] | None:
    """A `window_size` without padding tokens: the largest that is no larger than that of the first stage.

    One number, or one a stage where a stage's map is smaller; None where it would be below SMALLEST_WINDOW.
    """
    grids = list(_grids(card, bins))[: _stages(card)]
    for size in range(min(card.windows[0]), SMALLEST_WINDOW - 1, -1):
        each = [min(size, *(side for grid in of_bins for side in grid)) for of_bins in grids]
        sizes = [size] * len(each) if card.window_rule == "cover" else each
        whole = all(
            _share(card.window_rule, (s, s), [(grid, 1)]) == 0
            for s, of_bins in zip(sizes, grids, strict=True)
            for grid in of_bins
        )
        if whole:
            return size if len(set(sizes)) == 1 else sizes
    return None


def _stages(card: BackboneCard) -> int:
    return max(level.stage for level in card.pyramid)


def _grids(card: BackboneCard, bins: Sequence[Bin]) -> Iterator[list[HW]]:
    """Of each stage, the maps of all bins in cells."""
    for stride_px in STRIDES_PX[: len(card.windows)]:
        yield [(-(-b.height_px // stride_px), -(-b.width_px // stride_px)) for b in bins]


def _share(rule: WindowRule, window: HW, grids: Sequence[tuple[HW, int]]) -> float:
    """
    >>> round(_share("cover", (12, 12), [((28, 28), 1)]), 3)
    0.395
    """
    real = padded = 0
    for grid, rows in grids:
        cut, _ = fit_windows(rule, grid, window, _NO_SHIFT)
        height, width = padded_grid(grid, cut)
        real += rows * grid[0] * grid[1]
        padded += rows * height * width
    return 1 - real / padded
