"""Windows of a map: whole ones, or cut to what the map holds. Without torch, for plans."""

from __future__ import annotations

from typing import Literal

HW = tuple[int, int]

WindowRule = Literal["partition", "cover"]
"""What becomes of a window that is no smaller than the map, on each axis by itself. `partition`: the map is
padded to the window and the shift kept, as in mmdetection's and mmseg's Swin. `cover`: the window is cut to
the map and not shifted, as in SwinTransformer/Video-Swin-Transformer@db018fb
mmaction/models/backbones/swin_transformer.py:71-84; microsoft/Swin-Transformer does the same on square maps.
"""


def fit_windows(rule: WindowRule, grid: HW, window: HW, shift: HW) -> tuple[HW, HW]:
    """Window and shift in cells for a map of `grid` cells.

    >>> fit_windows("cover", (7, 14), (8, 8), (4, 4)), fit_windows("partition", (7, 14), (8, 8), (4, 4))
    (((7, 8), (0, 4)), ((8, 8), (4, 4)))
    """
    if rule == "partition":
        return window, shift
    (height, width), (rows, columns) = grid, window
    down, across = shift
    return (
        (min(rows, height), min(columns, width)),
        (down if height > rows else 0, across if width > columns else 0),
    )


def padded_grid(grid: HW, window: HW) -> HW:
    """The smallest multiple of the window that holds the grid.

    >>> padded_grid((63, 83), (8, 8))
    (64, 88)
    """
    return -(-grid[0] // window[0]) * window[0], -(-grid[1] // window[1]) * window[1]
