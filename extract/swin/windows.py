"""Geometry of shifted windows: padding, partition, the shift mask, and one gather that does all three.

Letters in tensor names: N images, H and W cells, C channels; G windows where it stands first, T tokens of a
window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.swin.window_rule import HW, padded_grid

MASKED = -100.0
"""Added to the logit of a pair from different regions: microsoft/Swin-Transformer
models/swin_transformer_v2.py; transformers 5.x adds it twice."""


def pad_to_windows(x_NHWC: Tensor, window: HW) -> Tensor:
    """x padded with zero tokens at the bottom and the right."""
    height, width = x_NHWC.shape[1:3]
    rows, columns = padded_grid((height, width), window)
    if (rows, columns) == (height, width):
        return x_NHWC
    return F.pad(x_NHWC, (0, 0, 0, columns - width, 0, rows - height))


def partition(x_NHWC: Tensor, window: HW) -> Tensor:
    """(N * windows, tokens, C), windows and tokens row by row; H and W are multiples of the window."""
    images, height, width, channels = x_NHWC.shape
    split = x_NHWC.view(
        images, height // window[0], window[0], width // window[1], window[1], channels
    ).transpose(2, 3)
    return split.reshape(-1, window[0] * window[1], channels)


def reverse(windows_GTC: Tensor, window: HW, grid: HW) -> Tensor:
    """(N, H, W, C): the inverse of `partition`."""
    channels = windows_GTC.shape[-1]
    split = windows_GTC.view(-1, grid[0] // window[0], grid[1] // window[1], *window, channels)
    return split.transpose(2, 3).reshape(-1, *grid, channels)


def _regions(size: int, window: int, shift: int, device: torch.device | str | None) -> Tensor:
    """Which of the three stripes each row (or column) of a rolled map belongs to."""
    position = torch.arange(size, device=device)
    return (position >= size - window).long() + (position >= size - shift).long()


def shift_mask(
    grid: HW,
    window: HW,
    shift: HW,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor | None:
    """Mask added to a rolled map's logits, so that tokens of different regions do not attend to each other.

    Args:
        grid: height and width of the padded map, multiples of the window.

    Returns:
        (windows, tokens, tokens), 0 or -100; None without a shift.
    """
    if not any(shift):
        return None
    label = window_regions(grid, window, shift, device)
    differs = label[:, :, None] != label[:, None, :]
    return torch.zeros(differs.shape, device=device, dtype=dtype).masked_fill_(differs, MASKED)


def window_regions(grid: HW, window: HW, shift: HW, device: torch.device | str | None = None) -> Tensor:
    """int64 (windows, tokens): the region of each token of a rolled map."""
    rows = _regions(grid[0], window[0], shift[0], device)
    columns = _regions(grid[1], window[1], shift[1], device)
    region = (rows[:, None] * 3 + columns[None, :]).view(1, *grid, 1)
    return partition(region, window).squeeze(-1)


Split = tuple[bool, bool]
"""Whether a window of a rolled map holds tokens of two sides: of its bottom row, of its right column."""
Run = tuple[int, int, Split]
"""Windows that need the same mask: the first, the last + 1, and which mask."""


def split_mask(window: HW, shift: HW, split: Split) -> Tensor:
    """`shift_mask` of one window, (tokens, tokens): there are only four, whatever the grid.

    >>> split_mask((2, 2), (1, 1), (True, False))[0].tolist()
    [0.0, 0.0, -100.0, -100.0]
    """
    rows = (torch.arange(window[0]) >= window[0] - shift[0]) & split[0]
    columns = (torch.arange(window[1]) >= window[1] - shift[1]) & split[1]
    label = (rows.long()[:, None] * 2 + columns.long()[None, :]).flatten()
    differs = label[:, None] != label[None, :]
    return torch.zeros(differs.shape).masked_fill_(differs, MASKED)


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Where the tokens of a map go when it is padded, rolled and partitioned, and where they come back from.

    Windows that need the same mask stand together, so that one constant serves each run of them.
    """

    window: HW
    """Height and width in cells."""
    tokens: int
    """Tokens of a window."""
    gather: Tensor
    """int64 (windows * tokens,): row of the map, (height * width) for a padding token."""
    scatter: Tensor
    """int64 (height * width,): for each row of the map its place in `gather`."""
    regions: Tensor
    """int8 (windows * tokens,): tokens of a window attend to each other freely where these are equal."""
    padded: bool
    """Whether there are padding tokens."""
    runs: tuple[Run, ...]
    """In order, covering all windows."""

    @property
    def windows(self) -> int:
        """Number of windows."""
        return self.runs[-1][1]

    @property
    def whole(self) -> int:
        """Number of windows, the first ones, whose tokens all belong to one region."""
        return next((first for first, _, split in self.runs if any(split)), self.windows)

    def runs_between(self, start: int, stop: int) -> list[Run]:
        """The runs of the windows from `start` to before `stop`, counted from `start`."""
        return [
            (max(first, start) - start, min(last, stop) - start, split)
            for first, last, split in self.runs
            if first < stop and last > start
        ]


@lru_cache(maxsize=64)  # eight for each padded size: four stages, shifted and not; under 1 MB each
def window_plan(grid: HW, window: HW, shift: HW, device: torch.device) -> WindowPlan:
    """The plan of a map of `grid` cells: padded first, then rolled by `shift`, then partitioned."""
    height, width = grid
    rows, columns = padded_grid(grid, window)
    index = torch.full((rows, columns), height * width)
    index[:height, :width] = torch.arange(height * width).view(height, width)
    rolled = torch.roll(index, (-shift[0], -shift[1]), (0, 1))
    by_window = partition(rolled.view(1, rows, columns, 1), window).squeeze(-1)

    down, across = rows // window[0], columns // window[1]
    bottom = (torch.arange(down) == down - 1) & (shift[0] > 0)
    right = (torch.arange(across) == across - 1) & (shift[1] > 0)
    kind = (bottom.long()[:, None] * 2 + right.long()[None, :]).flatten()
    order = torch.argsort(kind, stable=True)
    counts = torch.bincount(kind, minlength=4).tolist()
    runs, start = [], 0
    for number, count in enumerate(counts):
        if count:
            runs.append((start, start + count, (number >= 2, number % 2 == 1)))
            start += count

    gather = by_window[order].flatten()
    scatter = torch.empty(height * width + 1, dtype=torch.int64)
    scatter[gather] = torch.arange(len(gather))
    return WindowPlan(
        window=window,
        tokens=window[0] * window[1],
        gather=gather.to(device),
        scatter=scatter[:-1].to(device),
        regions=window_regions((rows, columns), window, shift)[order].flatten().to(device, torch.int8),
        padded=len(gather) > height * width,
        runs=tuple(runs),
    )
