"""The made classes: each is a pattern, painted in two colours that say nothing about the class.

A pattern is a function (generator, y, x, period_px) -> (H, W) in 0..1, where y and x are pixel coordinates
and `period_px` is its coarseness; 0 takes the darker colour, 1 the lighter one. Patterns differ in shape and
direction, but share their range of periods and of colours.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

Map = npt.NDArray[np.float32]
Pattern = Callable[[np.random.Generator, Map, Map, float], Map]

PERIOD_PX = (7.0, 12.0)
"""Coarseness of a painted region: neither its period nor its colour depends on the class."""


def generator(*key: object) -> np.random.Generator:
    """Random numbers that depend on `key` alone.

    >>> float(generator("validation", 7).random()) == float(generator("validation", 7).random())
    True
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def soft_noise(rng: np.random.Generator, shape: tuple[int, int], cell_y_px: float, cell_x_px: float) -> Map:
    """Smooth noise around 0 of about unit deviation whose bumps are as large as the cells."""
    height, width = shape
    cells = rng.standard_normal((max(2, int(height / cell_y_px) + 3), max(2, int(width / cell_x_px) + 3)))
    image = Image.fromarray(cells.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)


def paint(rng: np.random.Generator, name: str, shape: tuple[int, int]) -> Map:
    """A rectangle of class `name`: float32 (H, W, 3), 0..255."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    period = rng.uniform(*PERIOD_PX)
    corner_y, corner_x = rng.uniform(0, 200, 2).astype(np.float32)
    tone = PATTERNS[name](rng, y + corner_y, x + corner_x, period).astype(np.float32)
    dark, light = _two_colours(rng)
    painted: Map = dark + (light - dark) * tone[..., None]
    return painted


def _two_colours(rng: np.random.Generator) -> tuple[Map, Map]:
    """A darker and a lighter colour, float32 (3,), of any hue and related tints."""
    darker = rng.uniform(30, 110)
    lighter = darker + rng.uniform(50, 120)
    tint = rng.standard_normal(3)
    tint = 30 * (tint - tint.mean())
    other = tint * rng.uniform(0.3, 1) + 12 * rng.standard_normal(3)
    return _byte_range(darker + tint), _byte_range(lighter + other)


def _byte_range(colour: npt.NDArray[np.float64]) -> Map:
    return np.clip(colour, 0, 255).astype(np.float32)


def _steep(x: Map, slope: float) -> Map:
    stepped: Map = 1 / (1 + np.exp(-slope * x))
    return stepped


def _rotated(y: Map, x: Map, angle: float) -> tuple[Map, Map]:
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * y - sin * x, sin * y + cos * x


def _tile_values(rng: np.random.Generator, row: Map, column: Map) -> Map:
    """A random value in 0..1 for each tile of a grid."""
    values = rng.random((64, 64)).astype(np.float32)
    drawn: Map = values[np.floor(row).astype(int) % 64, np.floor(column).astype(int) % 64]
    return drawn


def _cells(rng: np.random.Generator, y: Map, x: Map, period_px: float, jitter: float) -> tuple[Map, Map, Map]:
    """Voronoi cells of a jittered lattice: distances to the nearest and second point, the cell's value."""
    row, column = y / period_px, x / period_px
    i, j = np.floor(row).astype(int), np.floor(column).astype(int)
    i0, j0 = i.min() - 1, j.min() - 1
    lattice = (i.max() - i0 + 2, j.max() - j0 + 2)
    off_y, off_x = (rng.random((2, *lattice)) * jitter + (1 - jitter) / 2).astype(np.float32)
    values = rng.random(lattice).astype(np.float32)
    nearest = np.full(y.shape, 9, np.float32)
    second, value = nearest.copy(), np.zeros_like(nearest)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            at = i + di - i0, j + dj - j0
            distance = np.hypot(i + di + off_y[at] - row, j + dj + off_x[at] - column).astype(np.float32)
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            value = np.where(closer, values[at], value)
            nearest = np.where(closer, distance, nearest)
    return nearest, second, value


def _sky(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """Soft clouds, much larger than any other pattern's parts."""
    return _steep(soft_noise(rng, y.shape, 3.5 * period_px, 5.6 * period_px), 1.8)


def _mountain(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """Dark winding creases."""
    noise = soft_noise(rng, y.shape, 1.6 * period_px, 1.6 * period_px)
    creased: Map = np.clip(1.3 * np.abs(noise) ** 0.7, 0, 1)
    return creased


def _building(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """A grid of windows, lit to different degrees."""
    y, x = _rotated(y, x, rng.uniform(-0.06, 0.06))
    row, column = y / (1.35 * period_px), x / (1.1 * period_px)
    window = (np.abs(row % 1 - 0.5) < 0.25) & (np.abs(column % 1 - 0.5) < 0.25)
    return np.where(window, 0.65 + 0.35 * _tile_values(rng, row, column), 0.1)


def _wall(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """Bricks in running bond with thin dark joints."""
    y, x = _rotated(y, x, rng.uniform(-0.12, 0.12))
    brick_y, brick_x = 0.75 * period_px, 1.9 * period_px
    row = y / brick_y
    column = x / brick_x + 0.5 * (np.floor(row) % 2)
    to_bed_px = (0.5 - np.abs(row % 1 - 0.5)) * brick_y
    to_end_px = (0.5 - np.abs(column % 1 - 0.5)) * brick_x
    return np.where(np.minimum(to_bed_px, to_end_px) < 0.7, 0, 0.6 + 0.4 * _tile_values(rng, row, column))


def _tree(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """Crowded round leaves, each darker towards its rim."""
    nearest, _, _ = _cells(rng, y, x, 0.8 * period_px, 0.9)
    leaves: Map = np.clip(1.15 - 1.5 * nearest, 0, 1)
    return leaves


def _grass(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """Irregular upright blades."""
    return _steep(soft_noise(rng, y.shape, 1.26 * period_px, 0.28 * period_px), 3)


def _water(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """Lying waves."""
    turn = 2 * math.pi / period_px
    swell = 1.6 * np.sin(x * turn / 2.2 + rng.uniform(0, 2 * math.pi))
    drift = soft_noise(rng, y.shape, 3 * period_px, 3 * period_px)
    waves: Map = 0.5 + 0.5 * np.sin(y * turn / 0.8 + swell + drift)
    return waves


def _road(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """Fine grain, the same at any period."""
    grain: Map = 0.25 + 0.5 * _steep(soft_noise(rng, y.shape, 1.6, 1.6), 1.3)
    return grain


def _field(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """Straight slanting furrows."""
    y, _ = _rotated(y, x, float(rng.choice([-1, 1])) * rng.uniform(0.5, 1.05))
    return _steep(np.sin(y * (2 * math.pi / (0.8 * period_px))), 3)


def _fence(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """Straight pickets with a rail here and there."""
    y, x = _rotated(y, x, rng.uniform(-0.12, 0.12))
    picket = (x / (0.8 * period_px)) % 1 < 0.5
    rail = (y / (2.2 * period_px)) % 1 < 0.17
    return (picket | rail).astype(np.float32)


def _rock(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """Flat facets between dark cracks."""
    nearest, second, value = _cells(rng, y, x, 1.5 * period_px, 0.95)
    return np.where(second - nearest < 0.1, 0, 0.35 + 0.65 * value)


def _path(rng: np.random.Generator, y: Map, x: Map, period_px: float) -> Map:
    """Round stones in staggered rows."""
    y, x = _rotated(y, x, rng.uniform(-0.3, 0.3))
    row = y / period_px
    column = x / period_px + 0.5 * (np.floor(row) % 2)
    return _steep(0.36 - np.hypot(row % 1 - 0.5, column % 1 - 0.5), 18)


PATTERNS: Mapping[str, Pattern] = {
    "sky": _sky,
    "mountain": _mountain,
    "building": _building,
    "wall": _wall,
    "tree": _tree,
    "grass": _grass,
    "water": _water,
    "road": _road,
    "field": _field,
    "fence": _fence,
    "rock": _rock,
    "path": _path,
}
"""ADE20K's name of each made class -> its pattern."""
