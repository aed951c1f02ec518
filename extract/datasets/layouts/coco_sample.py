"""A tiny set in COCO's official layout: rectangles on smooth images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.datasets.layouts.coco_files import SPLITS_WITHOUT_TRUTH, official_paths
from extract.datasets.layouts.sample_files import SAMPLE_SIZES_HW, image_bytes, sample_image

_THINGS = 2
"""Of an image."""


def write_coco_split(
    folder: Path, split: str, records: int, categories: Mapping[int, str], generator: np.random.Generator
) -> None:
    """`annotations/instances_<split>.json` and `<split>/*.jpg` of so many images, two things on each."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    path, pictures = official_paths(folder, split)
    has_truth = split not in SPLITS_WITHOUT_TRUTH
    for each in (path.parent, pictures):
        each.mkdir(parents=True, exist_ok=True)
    for number in range(1, records + 1):
        hw = SAMPLE_SIZES_HW[number % len(SAMPLE_SIZES_HW)]
        pixels, things = drawn_things(hw, list(categories), generator)
        annotations += [
            {"id": len(annotations) + place, "image_id": number, **thing}
            for place, thing in enumerate(things, start=1)
        ]
        name = f"{number:012d}.jpg"
        (pictures / name).write_bytes(image_bytes(pixels, "JPEG"))
        images.append({"id": number, "file_name": name, "height": hw[0], "width": hw[1], "license": 1})
    whole = {
        "info": {},
        "licenses": [],
        "images": images,
        **({"annotations": annotations} if has_truth else {}),
        "categories": [{"supercategory": "thing", "id": i, "name": name} for i, name in categories.items()],
    }
    path.write_text(json.dumps(whole))


def drawn_things(
    hw: tuple[int, int], categories: Sequence[int], generator: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], list[dict[str, Any]]]:
    """A smooth image, uint8 RGB (H, W, 3), with two rectangles, and their annotations without ids."""
    pixels = sample_image(generator, hw).copy()
    return pixels, [_thing(int(generator.choice(categories)), hw, pixels, generator) for _ in range(_THINGS)]


def _thing(
    category: int, hw: tuple[int, int], pixels: npt.NDArray[np.uint8], generator: np.random.Generator
) -> dict[str, Any]:
    """Draws a rectangle of the category's colour, and returns its annotation."""
    height, width = (int(generator.integers(side // 4, side // 2)) for side in hw)
    y, x = int(generator.integers(0, hw[0] - height)), int(generator.integers(0, hw[1] - width))
    colour = [(category * 67) % 256, (category * 151) % 256, (255 - category) % 256]
    pixels[y : y + height, x : x + width] = colour
    return {
        "category_id": category,
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]],
    }
