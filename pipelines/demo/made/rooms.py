"""Made rooms with true depth: a back wall, a floor and up to two boards, each at a depth of its own.

A surface that faces the camera shows the pattern of its distance, one of eleven, which is what the bundled
backbone distinguishes beside the floor's. It was trained to see past colour and coarseness, so that neither
haze nor the size of a texture would say much to it. The floor lies 1.2 m below a pinhole camera whose horizon
differs from room to room. A room follows from its split and number alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.demo.made.textures import PATTERNS, generator, paint

Map = npt.NDArray[np.float32]

HW = (192, 256)
UNITS_PER_M = 1000
NEAREST_M, FARTHEST_M = 1.5, 9.5
FLOOR = "road"
FACING = tuple(name for name in PATTERNS if name != FLOOR)
"""Patterns of surfaces that face the camera, the nearest first."""
_CAMERA_M, _FOCAL = 1.2, 0.8
"""Height over the floor; focal length over the image's width."""
_BOARD_PX = (88, 144)
"""Shorter and longer sides of boards."""
_UNKNOWN_SHARE = 0.03
"""Of the pixels, in blocks of 16, those that no depth is measured of."""


@dataclass(frozen=True, slots=True)
class Room:
    """An image and its depth."""

    rgb: npt.NDArray[np.uint8]
    """(H, W, 3)"""
    depth: npt.NDArray[np.uint16]
    """(H, W), millimetres; 0 = not measured."""


def pattern_at(depth_m: float) -> str:
    """The pattern of a surface that faces the camera at that depth.

    >>> pattern_at(NEAREST_M) == FACING[0], pattern_at(FARTHEST_M) == FACING[-1]
    (True, True)
    """
    share = (depth_m - NEAREST_M) / (FARTHEST_M - NEAREST_M)
    return FACING[min(len(FACING) - 1, int(share * len(FACING)))]


def make_room(split: str, number: int) -> Room:
    """Room `number` of `split`; any word is a split of its own.

    >>> room = make_room("test", 3)
    >>> room.rgb.shape[:2] == room.depth.shape, int(room.depth.max()) <= 1000 * FARTHEST_M
    (True, True)
    """
    rng = generator("room", split, number)
    height, width = HW
    horizon = rng.uniform(0.3, 0.6) * height
    rows = np.arange(height, dtype=np.float32)[:, None] + 0.5 - horizon
    with np.errstate(divide="ignore"):
        floor = np.where(rows > 0, _CAMERA_M * _FOCAL * width / rows, np.inf).astype(np.float32)
    back = rng.uniform(NEAREST_M + 1, FARTHEST_M)
    depth = np.minimum(floor, np.float32(back)) * np.ones(HW, np.float32)
    rgb = paint(rng, pattern_at(back), HW)
    on_floor = depth < back
    rgb[on_floor] = paint(rng, FLOOR, HW)[on_floor]
    for _ in range(int(rng.integers(0, 3))):
        at = rng.uniform(NEAREST_M, back)
        tall, wide = (int(rng.integers(*_BOARD_PX)) for _ in range(2))
        y, x = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
        nearer = depth[y : y + tall, x : x + wide] > at
        depth[y : y + tall, x : x + wide][nearer] = at
        rgb[y : y + tall, x : x + wide][nearer] = paint(rng, pattern_at(at), (tall, wide))[nearer]
    stored = np.rint(depth * UNITS_PER_M).astype(np.uint16)
    cells = rng.random((height // 16, width // 16)) < _UNKNOWN_SHARE
    stored[np.kron(cells, np.ones((16, 16), bool))] = 0
    return Room(np.clip(rgb + rng.normal(0, 2, rgb.shape), 0, 255).astype(np.uint8), stored)


def write_rooms(folder: Path, splits: dict[str, int]) -> None:
    """images/<split>/*.jpg and depths/<split>/*.png of so many rooms; what is there stays."""
    for split, count in splits.items():
        for kind in ("images", "depths"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = folder / "images" / split / f"room{number:04d}.jpg"
            depth = folder / "depths" / split / f"room{number:04d}.png"
            if depth.exists():  # it is written last
                continue
            room = make_room(split, number)
            Image.fromarray(room.rgb).save(image, quality=92)
            Image.fromarray(room.depth).save(depth)
