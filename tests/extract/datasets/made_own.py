"""Tiny own data: street scenes of three classes, as images and masks."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("sky", "road", "car")
HW = (48, 64)


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 RGB (48, 64, 3) and its labels, uint8 (48, 64) in 0..2: sky above road, one car."""
    labels = np.zeros(HW, np.uint8)
    labels[24:] = 1
    labels[20:36, 8 + number % 30 : 24 + number % 30] = 2
    colours = np.array([[120, 180, 250], [90, 90, 90], [220, 30, 40]], np.uint8)
    noise = np.random.default_rng(number).integers(0, 12, (*HW, 3), dtype=np.uint8)
    return colours[labels] - noise % colours[labels].min(), labels


def write_pair(image: Path, mask: Path, number: int, values: np.ndarray | None = None) -> None:
    """A jpg and a png; `values` by label are what the mask holds."""
    pixels, labels = scene(number)
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(image, quality=95)
    Image.fromarray(labels if values is None else values[labels]).save(mask)


def write_masks(root: Path, splits: dict[str, int]) -> Path:
    """images/<split>/*.jpg and masks/<split>/*.png, and classes.txt."""
    for split, count in splits.items():
        for number in range(count):
            write_pair(
                root / "images" / split / f"s{number:03d}.jpg",
                root / "masks" / split / f"s{number:03d}.png",
                number,
            )
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


DESCRIPTION = """
name: streets
layout: masks
data: data
splits:
  train: {images: images/train, masks: masks/train}
  test: {images: images/test, masks: masks/test}
classes: [sky, road, car]
ignored: [255]
"""


def write_description(path: Path, text: str = DESCRIPTION) -> Path:
    path.write_text(text)
    return path
