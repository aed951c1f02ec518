"""Made scenes with stick figures: images, and the 17 joints of each figure.

Figures face the viewer, lean by up to 40 degrees and hold arms and legs as they like; their
colours say nothing. Head and torso are drawn too, so that up and down, and with them left and right, can be
seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pipelines.demo.made.textures import generator, paint

Points = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

SIDES_PX = (240, 280, 320)
"""Heights and widths of scenes."""
HEIGHT_PX = (85.0, 125.0)
"""Of a figure that stands upright."""
MOST_FIGURES = 2
LEAN_DEG = 40.0
_GROUNDS = ("sky", "grass", "water", "road", "mountain", "field", "rock")
_TRIES = 30
_LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))
"""Pairs of joints, numbered as COCO's keypoints: arms, then legs."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Figure:
    """One stick figure."""

    joints: Points
    """(17, 2): x, y in pixels from the centre of the first one."""
    xywh: tuple[float, float, float, float]
    """Its box: around all that is drawn of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureScene:
    """An image and the figures in it."""

    rgb: npt.NDArray[np.uint8]
    """(H, W, 3)"""
    figures: tuple[Figure, ...]


def make_figure_scene(split: str, number: int) -> FigureScene:
    """Scene `number` of `split`, with one or two figures; any word is a split of its own.

    >>> scene = make_figure_scene("val2017", 0)
    >>> 1 <= len(scene.figures) <= 2 and scene.figures[0].joints.shape == (17, 2)
    True
    """
    rng = generator("figures", split, number)
    height, width = (int(side) for side in rng.choice(SIDES_PX, 2))
    ground = paint(rng, str(rng.choice(_GROUNDS)), (height, width))
    grain = rng.uniform(2, 8) * rng.standard_normal(ground.shape, np.float32)
    picture = Image.fromarray(np.clip(ground + grain, 0, 255).astype(np.uint8))
    figures: list[Figure] = []
    wanted = int(rng.integers(1, MOST_FIGURES + 1))
    for _ in range(_TRIES):
        figure, size = _placed(rng, (height, width))
        if figure is not None and not any(_overlap(figure.xywh, other.xywh) for other in figures):
            _draw(rng, picture, figure.joints, size)
            figures.append(figure)
        if len(figures) == wanted:
            break
    return FigureScene(rgb=np.asarray(picture), figures=tuple(figures))


def _placed(rng: np.random.Generator, hw: tuple[int, int]) -> tuple[Figure | None, float]:
    """A figure within the scene and its size; None where it has no room."""
    size = rng.uniform(*HEIGHT_PX)
    joints = _joints(rng) * size
    margin = 0.09 * size
    low, high = joints.min(0) - margin, joints.max(0) + margin
    room = np.array([hw[1], hw[0]]) - 1 - (high - low)
    if (room < 0).any():
        return None, size
    corner = rng.uniform((0, 0), room)
    joints = np.round(joints - low + corner, 2)
    x, y = joints.min(0) - margin
    width, height = np.ptp(joints, axis=0) + 2 * margin
    return Figure(joints=joints, xywh=(float(x), float(y), float(width), float(height))), size


def _joints(rng: np.random.Generator) -> Points:
    """(17, 2) of a figure of height 1, its hips near the origin, y downwards."""
    hip, shoulder = rng.uniform(0.08, 0.11), rng.uniform(0.11, 0.15)
    torso, arm, leg = rng.uniform(0.28, 0.33), rng.uniform(0.15, 0.18), rng.uniform(0.21, 0.25)
    joints = np.zeros((17, 2))
    joints[11], joints[12] = (hip, 0), (-hip, 0)  # the figure's left is the viewer's right
    joints[5], joints[6] = (shoulder, -torso), (-shoulder, -torso)
    joints[:5] = (0, -torso - 0.15)
    joints[1:5] += [(0.03, -0.03), (-0.03, -0.03), (0.065, -0.01), (-0.065, -0.01)]
    for side, (first, second, third) in ((1, (5, 7, 9)), (-1, (6, 8, 10))):
        upper = rng.uniform(-20, 160)
        _bend(joints, first, second, third, side, upper, upper + rng.uniform(-10, 110), arm)
    for side, (first, second, third) in ((1, (11, 13, 15)), (-1, (12, 14, 16))):
        upper = rng.uniform(-5, 70)
        _bend(joints, first, second, third, side, upper, upper - rng.uniform(0, 60), leg)
    lean = math.radians(rng.uniform(-LEAN_DEG, LEAN_DEG))
    cos, sin = math.cos(lean), math.sin(lean)
    turned: Points = joints @ np.array([[cos, sin], [-sin, cos]])
    return turned


def _bend(
    joints: Points,
    first: int,
    second: int,
    third: int,
    side: int,
    upper_deg: float,
    lower_deg: float,
    length: float,
) -> None:
    """Places two joints of a limb; angles are from straight down, outwards."""
    for joint, before, angle in ((second, first, upper_deg), (third, second, lower_deg)):
        turn = math.radians(angle)
        joints[joint] = joints[before] + length * np.array((side * math.sin(turn), math.cos(turn)))


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    shared = [min(a[axis] + a[axis + 2], b[axis] + b[axis + 2]) - max(a[axis], b[axis]) for axis in (0, 1)]
    return min(shared) > 0


def _draw(rng: np.random.Generator, picture: Image.Image, joints: Points, size: float) -> None:
    pen, thick = ImageDraw.Draw(picture), 0.055 * size
    trunk, limbs, skin, dark = (_colour(rng, bright) for bright in (150, 150, 210, 40))
    for first, second in _LIMBS:
        ends = [tuple(joints[number].tolist()) for number in (first, second)]
        pen.line(ends, fill=limbs, width=round(thick))
        for end in ends:
            _disc(pen, end, thick / 2, limbs)
    pen.polygon([tuple(joints[number].tolist()) for number in (5, 6, 12, 11)], fill=trunk)
    for number in (9, 10):
        _disc(pen, joints[number].tolist(), 0.6 * thick, skin)
    for number in (15, 16):
        _disc(pen, joints[number].tolist(), 0.7 * thick, dark)
    _disc(pen, joints[0].tolist(), 0.085 * size, skin)
    for number in (1, 2):
        _disc(pen, joints[number].tolist(), 0.014 * size, dark)


def _disc(pen: ImageDraw.ImageDraw, centre: tuple[float, ...], radius: float, colour: Colour) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _colour(rng: np.random.Generator, brightness: int) -> Colour:
    red, green, blue = np.clip(rng.normal(brightness, 35, 3), 0, 255).astype(int).tolist()
    return red, green, blue
