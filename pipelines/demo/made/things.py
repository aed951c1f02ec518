"""Made scenes with things to detect: images and exact masks.

Things of six classes of COCO stand apart from each other on one or two grounds; each has its outline and its
pattern, and colours that say nothing. An outline is a polygon and the thing is painted where pycocotools
draws it, so that the annotated masks are exact. Some scenes hold a crowd, a heap annotated as one region, and
some hold nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from pipelines.demo.made.textures import generator, paint, soft_noise

Outline = npt.NDArray[np.float64]
"""(points, 2): x, y."""
Mask = npt.NDArray[np.bool_]

SIDES_PX = (128, 144, 160)
"""Heights and widths of scenes."""
RADIUS_PX = (15.0, 34.0)
MOST_THINGS = 5
EMPTY_SHARE, CROWD_SHARE = 0.05, 0.1
"""Shares of scenes that hold no thing, and that hold a crowd."""
_TRIES = 40
_GAP_PX = 3
_GROUNDS = ("sky", "grass", "water", "road", "mountain")


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One annotated instance."""

    name: str
    """Of its class in COCO."""
    outlines: tuple[Outline, ...]
    """One, or those of all members of a crowd."""
    crowd: bool
    mask: Mask
    """(H, W)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThingScene:
    """An image and the things in it."""

    rgb: npt.NDArray[np.uint8]
    """(H, W, 3)"""
    things: tuple[Thing, ...]


def make_thing_scene(split: str, number: int) -> ThingScene:
    """Scene `number` of `split`; any word is a split of its own.

    >>> scene = make_thing_scene("val2017", 0)
    >>> all(thing.mask.shape == scene.rgb.shape[:2] for thing in scene.things)
    True
    """
    rng = generator("things", split, number)
    height, width = (int(side) for side in rng.choice(SIDES_PX, 2))
    rgb = _ground(rng, height, width)
    things = _things(rng, height, width)
    for thing in things:
        rgb[thing.mask] = paint(rng, PATTERN_OF[thing.name], (height, width))[thing.mask]
    light = 1 + 0.15 * soft_noise(rng, (height, width), 70, 70)
    grain = rng.uniform(2, 8) * rng.standard_normal(rgb.shape, np.float32)
    lit = rgb * np.clip(light, 0.5, 1.5)[..., None] + grain
    return ThingScene(rgb=np.clip(lit, 0, 255).astype(np.uint8), things=things)


def _ground(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """One ground, or two above each other."""
    first, second = rng.choice(_GROUNDS, 2, replace=False)
    rgb = paint(rng, str(first), (height, width))
    if rng.random() < 0.6:
        shore = int(rng.uniform(0.3, 0.7) * height)
        rgb[shore:] = paint(rng, str(second), (height - shore, width))
    return rgb


def _things(rng: np.random.Generator, height: int, width: int) -> tuple[Thing, ...]:
    if rng.random() < EMPTY_SHARE:
        return ()
    taken = np.zeros((height, width), bool)
    found: list[Thing] = []
    if rng.random() < CROWD_SHARE:
        found += _placed(rng, taken, crowd=True)
    for _ in range(int(rng.integers(1, MOST_THINGS + 1))):
        found += _placed(rng, taken, crowd=False)
    return tuple(found)


def _placed(rng: np.random.Generator, taken: Mask, *, crowd: bool) -> list[Thing]:
    """A thing, or a heap of small ones, where nothing is yet; none where there is no room. Marks `taken`."""
    height, width = taken.shape
    name = str(rng.choice(list(OUTLINES)))
    for _ in range(_TRIES):
        radius = rng.uniform(*RADIUS_PX)
        if 2 * radius + 2 >= min(height, width):
            continue
        centre = rng.uniform((radius + 1, radius + 1), (width - radius - 1, height - radius - 1))
        outlines = _heap(rng, name, centre, radius) if crowd else (_outline(rng, name, centre, radius),)
        mask = drawn(outlines, (height, width))
        if taken[_widened(mask)].any() or not mask.any():
            continue
        taken |= mask
        return [Thing(name=name, outlines=outlines, crowd=crowd, mask=mask)]
    return []


def _outline(rng: np.random.Generator, name: str, centre: Outline, radius: float) -> Outline:
    """One thing within a circle, turned at will, at the hundredths of a pixel that COCO's files have."""
    points = OUTLINES[name](rng)
    turn = rng.uniform(-TURN[name], TURN[name])
    cos, sin = np.cos(turn), np.sin(turn)
    turned = points @ np.array([[cos, sin], [-sin, cos]]) * radius
    placed: Outline = np.round(turned + centre, 2)
    return placed


def _heap(rng: np.random.Generator, name: str, centre: Outline, radius: float) -> tuple[Outline, ...]:
    """Many small ones within a circle, over each other."""
    offsets = radius * 0.7 * rng.uniform(-0.7, 0.7, (12, 2))
    return tuple(_outline(rng, name, centre + offset, radius * 0.28) for offset in offsets)


def drawn(outlines: Sequence[Outline], size_hw: tuple[int, int]) -> Mask:
    """The pixels within any of the outlines, as pycocotools has them: (H, W)."""
    parts = coco_mask.frPyObjects([outline.reshape(-1).tolist() for outline in outlines], *size_hw)
    mask: Mask = coco_mask.decode(coco_mask.merge(parts)).astype(bool)
    return mask


def _widened(mask: Mask) -> tuple[slice, slice]:
    """The box of a mask and a gap around it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(0, rows[0] - _GAP_PX), rows[-1] + 1 + _GAP_PX),
        slice(max(0, columns[0] - _GAP_PX), columns[-1] + 1 + _GAP_PX),
    )


def _arc(start: float, stop: float, points: int, radius: float = 1.0) -> Outline:
    angle = np.linspace(start, stop, points)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _ball(rng: np.random.Generator) -> Outline:
    return _arc(0, 2 * np.pi, 25)[:-1]


def _kite(rng: np.random.Generator) -> Outline:
    half = rng.uniform(0.5, 0.7)
    return np.array([(0, -1), (half, -0.25), (0, 1), (-half, -0.25)], np.float64)


def _book(rng: np.random.Generator) -> Outline:
    angle = rng.uniform(0.5, 0.75)
    x, y = np.cos(angle), np.sin(angle)
    return np.array([(-x, -y), (x, -y), (x, y), (-x, y)], np.float64)


def _umbrella(rng: np.random.Generator) -> Outline:
    """Half a disc above a scalloped hem."""
    scallop = _arc(0, np.pi, 7, 0.25)[1:-1] * (1, -1)
    hem = [scallop + np.array((x, 0.0)) for x in (0.75, 0.25, -0.25, -0.75)]
    umbrella: Outline = np.concatenate([_arc(np.pi, 2 * np.pi, 15), *hem]) + np.array((0, 0.4))
    return umbrella


def _stop_sign(rng: np.random.Generator) -> Outline:
    return _arc(np.pi / 8, 2 * np.pi + np.pi / 8, 9)[:-1]


def _banana(rng: np.random.Generator) -> Outline:
    """A fat crescent."""
    inner = _arc(np.pi, 0, 13) * np.array((0.95, rng.uniform(0.15, 0.35)))
    crescent: Outline = np.concatenate([_arc(0, np.pi, 15), inner[1:-1]]) - np.array((0, 0.5))
    return crescent


OUTLINES = {
    "kite": _kite,
    "sports ball": _ball,
    "umbrella": _umbrella,
    "stop sign": _stop_sign,
    "book": _book,
    "banana": _banana,
}
"""Class of COCO -> its outline within the unit circle, y downwards."""
PATTERN_OF = {
    "kite": "field",
    "sports ball": "path",
    "umbrella": "fence",
    "stop sign": "building",
    "book": "wall",
    "banana": "rock",
}
"""Class of COCO -> its pattern of `pipelines.demo.made.textures`."""
TURN: Mapping[str, float] = {
    "kite": 0.6,
    "sports ball": 0.0,
    "umbrella": 0.5,
    "stop sign": 0.2,
    "book": 0.5,
    "banana": 3.1,
}
"""Class of COCO -> the most it is turned either way, in radians."""
