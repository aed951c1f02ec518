"""Affine maps of the plane, from the source of a view to the view and back; knows no image."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Matrix = tuple[float, float, float, float, float, float]
"""Rows of a 2x3 matrix: (x, y) of the source in pixel centres -> (x, y) of the crop."""
Points = npt.NDArray[np.float64]


def applied(matrix: Matrix, points_K2: Points) -> Points:
    """Points, float64 (K, 2) of x and y, under a map."""
    rows = np.array(matrix, np.float64).reshape(2, 3)
    moved: Points = points_K2 @ rows[:, :2].T + rows[:, 2]
    return moved


def inverse(matrix: Matrix) -> Matrix:
    """The map back. Raises ValueError for one that has none.

    >>> inverse((5.0, 0.0, -122.5, 0.0, 5.0, -122.5))
    (0.2, 0.0, 24.5, 0.0, 0.2, 24.5)
    """
    a, b, c, d, e, f = matrix
    area = a * e - b * d
    if not math.isfinite(area) or abs(area) < 1e-12:
        raise ValueError(f"the affine map {matrix} has no inverse")
    ia, ib, id_, ie = e / area, -b / area, -d / area, a / area
    return ia, ib + 0.0, -(ia * c + ib * f), id_ + 0.0, ie, -(id_ * c + ie * f)


def points_in_source(matrix: Matrix, flip: bool, width_px: int, points_K2: Points) -> Points:
    """Points of a view, float64 (K, 2) of x and y, in pixels of its source.

    Args: width_px: of the view.
    """
    points = np.array(points_K2, np.float64)
    if flip:
        points[:, 0] = width_px - 1 - points[:, 0]
    return applied(inverse(matrix), points)
