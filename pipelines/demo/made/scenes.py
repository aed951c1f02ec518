"""Made scenes with label maps, and their files in the official layout of ADE20K.

Sky above a horizon, mountains, houses or trees along it, one or two kinds of ground below, and a few things
standing there. A scene follows from its split and number alone, so splits never share one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from extract.datasets.ade20k import CLASS_NAMES, DEFAULT_FOLDER
from pipelines.demo.made.textures import PATTERNS, generator, paint, soft_noise

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint8]
Coordinates = npt.NDArray[np.float32]
"""(H, W): the y or the x of each pixel."""

SIDES_PX = (128, 144, 160)
"""Heights and widths of scenes."""
CLASS_LABELS = {name: CLASS_NAMES.index(name) for name in PATTERNS}
"""Made class -> its label in ADE20K, 0..149."""

_GROUNDS = ("grass", "water", "road", "field", "path")
_THINGS = ("wall", "wall", "fence", "fence", "rock", "rock", "tree")


@dataclass(frozen=True, slots=True)
class Scene:
    """An image and what is where in it."""

    rgb: npt.NDArray[np.uint8]
    """(H, W, 3)"""
    labels: Labels
    """(H, W), values of CLASS_LABELS"""


def make_scene(split: str, number: int) -> Scene:
    """Scene `number` of `split`; any word is a split of its own.

    >>> scene = make_scene("validation", 3)
    >>> scene.rgb.shape[:2] == scene.labels.shape, bool(np.isin(2, scene.labels))
    (True, True)
    """
    rng = generator("scene", split, number)
    height, width = (int(side) for side in rng.choice(SIDES_PX, 2))
    rgb = np.zeros((height, width, 3), np.float32)
    labels = np.zeros((height, width), np.uint8)
    for name, mask in _layout(rng, height, width):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            continue
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        inside = mask[box]
        rgb[box][inside] = paint(rng, name, inside.shape)[inside]
        labels[box][inside] = CLASS_LABELS[name]
    light = 1 + 0.15 * soft_noise(rng, (height, width), 70, 70)
    grain = rng.uniform(2, 8) * rng.standard_normal(rgb.shape, np.float32)
    lit = rgb * np.clip(light, 0.5, 1.5)[..., None] + grain
    return Scene(np.clip(lit, 0, 255).astype(np.uint8), labels)


def write_split(root: Path, split: str, count: int) -> Path:
    """Writes scenes 0..count-1 of `split` as the official ADE20K challenge files, unless they are there.

    Returns:
        The data set's folder, `root`/ADEChallengeData2016.
    """
    word = {"training": "train", "validation": "val"}[split]
    folder = root / DEFAULT_FOLDER
    images, annotations = folder / "images" / split, folder / "annotations" / split
    images.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        key = f"ADE_{word}_{number + 1:08d}"
        image, annotation = images / f"{key}.jpg", annotations / f"{key}.png"
        if image.exists() and annotation.exists():
            continue
        scene = make_scene(split, number)
        # 0 means unlabelled in the official files, 1..150 are the classes.
        _save(Image.fromarray(scene.labels + np.uint8(1)), annotation, format="PNG")
        _save(Image.fromarray(scene.rgb), image, format="JPEG", quality=92)
    return folder


def _save(image: Image.Image, path: Path, **settings: Any) -> None:
    """Writes under another name first, so that a killed demo leaves no half file behind."""
    partial = path.with_name(path.name + ".partial")
    image.save(partial, **settings)
    os.replace(partial, path)


def _layout(rng: np.random.Generator, height: int, width: int) -> Iterator[tuple[str, Mask]]:
    """Class and place of each region, back to front; a later one covers the earlier."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    horizon = rng.uniform(0.32, 0.5) * height
    yield "sky", np.ones((height, width), bool)
    yield from _skyline(rng, y, x, horizon)
    ground = y > _wavy_line(rng, width, horizon, 0.02 * height)
    first, second = rng.choice(_GROUNDS, 2, replace=False)
    yield str(first), ground
    if rng.random() < 0.8:
        yield str(second), ground & _second_ground(rng, y, x, horizon)
    for thing in rng.choice(_THINGS, rng.integers(1, 4)):
        yield str(thing), _thing(rng, str(thing), y, x)


def _wavy_line(
    rng: np.random.Generator, width: int, level: float, swing_px: float
) -> npt.NDArray[np.float64]:
    """The y of a wavy line at every x."""
    turn = 2 * np.pi * np.arange(width) / width
    line = np.full(width, level)
    for k in (1, 2, 3):
        line += swing_px / k * np.sin(k * turn * rng.uniform(0.5, 1.2) + rng.uniform(0, 2 * np.pi))
    return line


def _skyline(
    rng: np.random.Generator, y: Coordinates, x: Coordinates, horizon: float
) -> Iterator[tuple[str, Mask]]:
    """What stands along the horizon: mountains, buildings, trees or nothing."""
    height, width = y.shape
    match rng.choice(["mountain", "building", "tree", "nothing"], p=[0.3, 0.35, 0.25, 0.1]):
        case "mountain":
            level = horizon - rng.uniform(0.14, 0.22) * height
            yield "mountain", y > _wavy_line(rng, width, level, 0.07 * height)
        case "tree":
            tops = 0.04 * height * np.abs(np.sin(np.arange(width) / rng.uniform(5, 8)))
            level = horizon - rng.uniform(0.1, 0.2) * height
            yield "tree", y > _wavy_line(rng, width, level, 0.03 * height) - tops
        case "building":
            left = rng.uniform(-0.1, 0.3) * width
            for _ in range(rng.integers(2, 4)):
                right = left + rng.uniform(0.22, 0.42) * width
                yield "building", (x > left) & (x < right) & (y > horizon - rng.uniform(0.18, 0.32) * height)
                left = right + rng.uniform(0, 0.08) * width


def _second_ground(rng: np.random.Generator, y: Coordinates, x: Coordinates, horizon: float) -> Mask:
    """Everything below a shore, or a strip that widens towards the viewer."""
    height, width = y.shape
    if rng.random() < 0.5:
        below: Mask = y > _wavy_line(rng, width, rng.uniform(0.6, 0.8) * height, 0.05 * height)
        return below
    nearness = (y - horizon) / (height - horizon)
    far, near = rng.uniform(0.3, 0.7) * width, rng.uniform(0.1, 0.9) * width
    strip: Mask = np.abs(x - (far + (near - far) * nearness)) < (0.04 + 0.3 * nearness) * width
    return strip


def _thing(rng: np.random.Generator, name: str, y: Coordinates, x: Coordinates) -> Mask:
    """A wall (with a gable at times), fence, rock or tree that stands in the foreground."""
    height, width = y.shape
    centre, foot = rng.uniform(0.1, 0.9) * width, rng.uniform(0.6, 0.98) * height
    match name:
        case "wall":
            half, top = rng.uniform(0.12, 0.22) * width, foot - rng.uniform(0.22, 0.4) * height
            gable = 0.16 * height * rng.integers(0, 2) + 1e-6
            slope = np.clip(1 - (top - y) / gable, 0, 1)
            front: Mask = (y < foot) & (np.abs(x - centre) < half * slope)
            return front
        case "fence":
            half, tall = rng.uniform(0.2, 0.4) * width, rng.uniform(0.16, 0.24) * height
            level = y + rng.uniform(-0.15, 0.15) * (x - centre)
            band: Mask = (np.abs(x - centre) < half) & (level < foot) & (level > foot - tall)
            return band
        case "rock":
            radius_y, radius_x = rng.uniform(0.11, 0.18) * height, rng.uniform(0.13, 0.22) * width
            return _blob(rng, (y - foot + radius_y) / radius_y, (x - centre) / radius_x, {3: 0.1, 5: 0.07})
        case _:
            radius = rng.uniform(0.12, 0.19) * height
            return _blob(rng, (y - foot) / radius + 1.6, (x - centre) / radius, {7: 0.08})


def _blob(rng: np.random.Generator, y: Coordinates, x: Coordinates, bumps: dict[int, float]) -> Mask:
    """A unit disc whose rim waves `n` times by a share of its radius, for each n of `bumps`."""
    angle = np.arctan2(y, x)
    rim = 1 + sum(share * np.sin(n * angle + rng.uniform(0, 2 * np.pi)) for n, share in bumps.items())
    disc: Mask = np.hypot(y, x) < rim
    return disc
