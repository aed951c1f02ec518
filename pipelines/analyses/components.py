"""Feature colours: principal components 1 to 3 of a level as red, green and blue, fitted over all images.

Letters in array names: N images, C channels, y and x cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

_LOW, _HIGH = 2, 98
"""Percentiles that become black and full colour, over all images."""
_OTSU_BINS = 256

Floats = npt.NDArray[np.float64]
Foreground = Literal["off", "on", "flip"]


def component_colours(
    maps_NCyx: Sequence[npt.NDArray[np.float32]],
    *,
    foreground: Foreground = "off",
    remove_position: bool = False,
) -> list[npt.NDArray[np.uint8]]:
    """A colour picture (y, x, 3) of each image's map (C, y, x), one basis for all.

    Cells of all images are centred by their common mean and projected on the three directions of largest
    variance; a direction's sign makes its largest loading positive, so that equal features give equal
    colours. Maps hold valid cells only: padding and prefix tokens must not enter the fit. A level with fewer
    than three channels leaves the other colours black.

    Args:
        foreground: on: cells whose first component exceeds Otsu's threshold; flip: the others. A second fit
            on these alone gives their colours, the rest is black.
        remove_position: subtract from each cell its mean over the images first.

    Raises ValueError without any cell, or for maps of several sizes with `remove_position`.
    """
    if not maps_NCyx or not sum(x_Cyx[0].size for x_Cyx in maps_NCyx):
        raise ValueError("no cells to fit components on: pass at least one map")
    maps = [x_Cyx.astype(np.float64) for x_Cyx in maps_NCyx]
    if remove_position:
        if len({x_Cyx.shape for x_Cyx in maps}) > 1:
            raise ValueError("a mean of each cell over the images needs maps of one size")
        mean_Cyx = np.mean(maps, axis=0)
        maps = [x_Cyx - mean_Cyx for x_Cyx in maps]
    cells = [x_Cyx.reshape(len(x_Cyx), -1).T for x_Cyx in maps]
    every = np.concatenate(cells)
    shown = _foreground(every, foreground)
    centre = every[shown].mean(0)
    projected = (every - centre) @ _basis(every[shown] - centre)
    low, high = np.percentile(projected[shown], [_LOW, _HIGH], axis=0)
    shares = (projected - low) / np.where(high > low, high - low, 1.0)
    colours = np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
    colours[~shown] = 0
    parts = np.split(colours, np.cumsum([len(each) for each in cells])[:-1])
    return [part.reshape(*x_Cyx.shape[1:], 3) for part, x_Cyx in zip(parts, maps, strict=True)]


def _foreground(cells: Floats, foreground: Foreground) -> npt.NDArray[np.bool_]:
    """Which cells are fitted and coloured; all where one side would be empty."""
    if foreground == "off":
        return np.ones(len(cells), bool)
    first = (cells - cells.mean(0)) @ _basis(cells - cells.mean(0))[:, 0]
    above: npt.NDArray[np.bool_] = first > otsu_threshold(first)
    chosen = ~above if foreground == "flip" else above
    return chosen if chosen.any() else np.ones(len(cells), bool)


def otsu_threshold(values: Floats) -> float:
    """The threshold that separates values into two classes of largest variance between them (Otsu 1979).

    >>> 1 < otsu_threshold(np.array([0.0, 0.5, 1.0, 9.0, 9.5, 10.0])) < 9
    True
    """
    counts, edges = np.histogram(values, _OTSU_BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    below, weighted = np.cumsum(counts), np.cumsum(counts * middles)
    above, rest = below[-1] - below, weighted[-1] - weighted
    inside = (below > 0) & (above > 0)
    between = np.where(inside, 0.0, -1.0)
    b, a = below[inside], above[inside]
    between[inside] = b * a * (weighted[inside] / b - rest[inside] / a) ** 2
    # Between two clusters every edge is as good: the middle one is taken.
    best = np.flatnonzero(between == between.max())
    return float(edges[best[len(best) // 2] + 1])


def _basis(centred: Floats) -> Floats:
    """(C, 3): eigenvectors of the covariance, the largest first."""
    _, vectors = np.linalg.eigh(centred.T @ centred)
    first = vectors[:, ::-1][:, :3]
    signs = np.sign(first[np.abs(first).argmax(0), np.arange(first.shape[1])])
    padded = np.zeros((len(first), 3))
    padded[:, : first.shape[1]] = first * np.where(signs == 0, 1.0, signs)
    return padded
