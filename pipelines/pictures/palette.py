"""Colour of each class label, the same in all pictures: 80 classes differ, near labels most."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

LABELS = 256
_NEAR = 6
"""Labels so near in number should differ most: data sets list related classes together."""
_LIGHTNESS = (0.38, 0.9)
"""Neither lost on black nor on white."""
_STEPS = 12
_OF_CONES = (
    (0.4122215, 0.5363325, 0.0514460),
    (0.2119035, 0.6806996, 0.1073970),
    (0.0883025, 0.2817188, 0.6299787),
)
_OF_OKLAB = (
    (0.2104543, 0.7936178, -0.0040720),
    (1.9779985, -2.4285922, 0.4505937),
    (0.0259040, 0.7827718, -0.8086758),
)


@cache
def _palette() -> npt.NDArray[np.uint8]:
    """Chosen one after another from a grid of colours, each the farthest in Oklab from all before it, with
    those of the last labels counted at half of their distance; as Glasbey et al. 2007.

    Oklab, since CIELAB holds saturated oranges for far apart that readers call the same.
    """
    axis = np.linspace(0, 255, _STEPS).round()
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    lab = oklab_of(grid)
    usable = (lab[:, 0] > _LIGHTNESS[0]) & (lab[:, 0] < _LIGHTNESS[1])
    grid, lab = grid[usable], lab[usable]
    chosen = [int(np.abs(grid - (0, 109, 219)).sum(1).argmin())]  # blue, also to colour-blind readers
    distances: list[npt.NDArray[np.float64]] = []
    nearest = np.full(len(lab), np.inf)
    while len(chosen) < LABELS:
        distances = [*distances, np.linalg.norm(lab - lab[chosen[-1]], axis=1)][-_NEAR:]
        nearest = np.minimum(nearest, distances[-1])
        score = np.minimum(nearest, np.min(distances, axis=0) / 2)
        score[chosen] = -1
        chosen.append(int(score.argmax()))
    return grid[chosen].astype(np.uint8)


def palette() -> npt.NDArray[np.uint8]:
    """A colour for each label, uint8 (256, 3)."""
    return _palette().copy()


def oklab_of(rgb: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Oklab (lightness 0..1, a, b) of sRGB colours 0..255, (N, 3); Ottosson 2020, "A perceptual color space".

    >>> oklab_of(np.array([[255.0, 0.0, 0.0]])).round(3).tolist()
    [[0.628, 0.225, 0.126]]
    """
    share = np.asarray(rgb, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    found: npt.NDArray[np.float64] = np.cbrt(linear @ np.transpose(_OF_CONES)) @ np.transpose(_OF_OKLAB)
    return found
