"""Tiny own data: street scenes of three classes, as images and masks, or with boxes in COCO's format."""

import json
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


def write_instances(root: Path, splits: dict[str, int], *, masks: bool = True) -> Path:
    """<split>.json and images below pictures/<split>/, whose names hold a folder; ids have gaps.

    Categories are 7 road and 30 car; every image has its car.
    """
    for split, count in splits.items():
        images, annotations = [], []
        for number in range(count):
            name = f"day{number % 2}/s{number:03d}.jpg"
            path = root / "pictures" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels, labels = scene(number)
            Image.fromarray(pixels).save(path, quality=95)
            images.append({"id": 100 + 3 * number, "file_name": name, "height": HW[0], "width": HW[1]})
            (rows, columns) = np.nonzero(labels == 2)
            x, y = int(columns.min()), int(rows.min())
            w, h = int(columns.max()) + 1 - x, int(rows.max()) + 1 - y
            box = {"id": 10 * number + 1, "image_id": 100 + 3 * number, "category_id": 30, "iscrowd": 0}
            box |= {"bbox": [x, y, w, h], "area": w * h}
            if masks:
                box["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations.append(box)
        categories = [{"id": 30, "name": "car"}, {"id": 7, "name": "road"}]
        whole = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(whole))
    return root


INSTANCES = """
name: cars
layout: coco-json
data: data
splits:
  train: {annotations: train.json, images: pictures/train}
  test: {annotations: test.json, images: pictures/test}
classes: {7: road, 30: car}
"""
