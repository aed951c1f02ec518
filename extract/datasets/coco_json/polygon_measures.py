"""Extents of polygons, and bounds of their masks' compressed counts, of many instances at a time.

Judged and measured is what `coco_json.annotations` and `extract.views.instance_targets` judge and measure one
by one, with equal results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extract.datasets.coco_json.annotations import MAX_OUTLINE
from extract.datasets.coco_json.plain_polygons import FlatPolygons
from extract.views.instances import outline_steps

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_NEAR = 1e-6
"""Sums that are so near to a limit are summed as `coco_json.annotations` does it."""


@dataclass(frozen=True, slots=True)
class PolygonMeasures:
    """Of each instance."""

    extents: Floats
    """float64 (instances, 4): least x and y, largest x and y."""
    steps: Ints
    """(instances,): columns that its outline crosses, at most."""
    fits: npt.NDArray[np.bool_]
    """(instances,): False where it lies far outside its image, or its outline is too long or nearly so."""


def measured_polygons(polygons: FlatPolygons, sizes_hw: Ints) -> PolygonMeasures:
    """Args: sizes_hw: (instances, 2), of the image of each, in pixels."""
    x, y = polygons.values[0::2].copy(), polygons.values[1::2].copy()
    points = polygons.lengths // 2
    stops = np.cumsum(points)
    firsts, lasts = stops - points, stops - 1
    first_polygons = np.cumsum(polygons.counts) - polygons.counts
    starts = firsts[first_polygons]
    low = np.stack([np.minimum.reduceat(x, starts), np.minimum.reduceat(y, starts)], 1)
    high = np.stack([np.maximum.reduceat(x, starts), np.maximum.reduceat(y, starts)], 1)
    across = _edges(x, firsts, lasts)
    columns = np.add.reduceat(across, starts) + np.add.reduceat(2.0 * points + 2, first_polygons)
    limits = sizes_hw[:, ::-1].astype(np.float64)
    inside = (low >= -limits) & (high <= 2 * limits)  # false of what is not finite
    fits = inside[:, 0] & inside[:, 1]
    longest = MAX_OUTLINE * sizes_hw.sum(1) * (1 - _NEAR)
    may_be_long = np.add.reduceat(points, first_polygons) * (high - low).max(1) >= longest
    if may_be_long.any():
        outlines = np.add.reduceat(np.maximum(across, _edges(y, firsts, lasts)), starts)
        fits &= outlines < longest
    steps = np.where(fits, np.ceil(columns), 0).astype(np.int64)
    is_near = fits & (np.abs(columns - np.rint(columns)) < _NEAR * np.maximum(columns, 1))
    for near in np.flatnonzero(is_near).tolist():
        first = first_polygons[near]
        steps[near] = _steps(polygons, range(first, first + polygons.counts[near]), firsts)
    return PolygonMeasures(np.concatenate([low, high], axis=1), steps, fits)


def _edges(coordinates: Floats, firsts: Ints, lasts: Ints) -> Floats:
    """From the point before, the last one before the first of a polygon."""
    edges = np.diff(coordinates, prepend=0.0)
    edges[firsts] = coordinates[firsts] - coordinates[lasts]
    return np.abs(edges, out=edges)


def _steps(polygons: FlatPolygons, numbers: range, firsts: Ints) -> int:
    """As `extract.views.instance_targets.rle_bytes` sums them."""
    points = polygons.values.reshape(-1, 2)
    parts = [points[firsts[n] : firsts[n] + polygons.lengths[n] // 2] for n in numbers]
    return math.ceil(sum(float(outline_steps(part)[:, 0].sum()) + 2 * len(part) + 2 for part in parts))
