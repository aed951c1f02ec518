"""Colour of each class label, the same in all pictures: labels near each other are far apart in colour."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

LABELS = 256
_NEAR = 12
"""Labels so near in number should differ most: data sets list related classes together."""
_LIGHTNESS = (28.0, 88.0)
"""Neither lost on black nor on white."""
_STEPS = 8


@cache
def _palette() -> npt.NDArray[np.uint8]:
    """Chosen one after another from a grid of colours, each the farthest in CIELAB from all before it, with
    those of the last labels counted at a third of their distance; as Glasbey et al. 2007."""
    axis = np.linspace(0, 255, _STEPS).round()
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    lab = lab_of(grid)
    usable = (lab[:, 0] > _LIGHTNESS[0]) & (lab[:, 0] < _LIGHTNESS[1])
    grid, lab = grid[usable], lab[usable]
    first = int(np.abs(grid - (0, 109, 219)).sum(1).argmin())  # blue, also to colour-blind readers
    chosen = [first]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    nearest = distance[first].copy()
    while len(chosen) < LABELS:
        recent = distance[chosen[-_NEAR:]].min(0) / 3
        score = np.minimum(nearest, recent)
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        nearest = np.minimum(nearest, distance[chosen[-1]])
    return grid[chosen].astype(np.uint8)


def palette() -> npt.NDArray[np.uint8]:
    """A colour for each label, uint8 (256, 3)."""
    return _palette().copy()


def lab_of(rgb: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """CIELAB of sRGB colours 0..255, (N, 3), for white D65.

    >>> lab_of(np.array([[255.0, 255.0, 255.0]])).round(1).tolist()
    [[100.0, 0.0, 0.0]]
    """
    share = np.asarray(rgb, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    of_x, of_y = (0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750)
    to_xyz = np.array([of_x, of_y, (0.0193339, 0.1191920, 0.9503041)])
    xyz = linear @ to_xyz.T / to_xyz.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    found: npt.NDArray[np.float64] = np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1
    )
    return found + 0.0  # no negative zeros
