"""Tiny classification data: photographs of two classes, red and blue, in every layout."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "red fox")
COLOURS = np.array([[200, 40, 30], [30, 60, 210]], np.uint8)


def photo(number: int, hw: tuple[int, int] = (48, 64)) -> np.ndarray:
    """uint8 RGB (H, W, 3) of class `number % 2`: its colour with noise."""
    noise = np.random.default_rng(number).integers(0, 28, (*hw, 3), dtype=np.uint8)
    return COLOURS[number % 2] + noise


def write_photo(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(number)).save(path, quality=95)


def write_folders(root: Path, splits: dict[str, int]) -> Path:
    """<split>/<class>/p<number>.jpg, classes in turn; those of odd numbers lie a folder deeper."""
    for split, count in splits.items():
        for number in range(count):
            deeper = "more/" if number % 4 > 1 else ""
            write_photo(root / split / CLASSES[number % 2] / f"{deeper}p{number:03d}.jpg", number)
    return root


def write_lists(root: Path, splits: dict[str, int]) -> Path:
    """photos/p<number>.jpg and <split>.txt, whose lines are a path and a number."""
    start = 0
    for split, count in splits.items():
        numbers = range(start, start + count)
        for number in numbers:
            write_photo(root / "photos" / f"p{number:03d}.jpg", number)
        lines = [f"photos/p{number:03d}.jpg {number % 2}" for number in numbers]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
        start += count
    return root


def write_json(root: Path, splits: dict[str, int]) -> Path:
    """<split>.json as iNaturalist's: images, categories 4 and 9, and one annotation an image."""
    for split, count in splits.items():
        images, annotations = [], []
        for number in range(count):
            name = f"{split}/{number:03d}.jpg"
            write_photo(root / name, number)
            images.append({"id": 50 + number, "file_name": name})
            annotations.append({"id": number, "image_id": 50 + number, "category_id": (9, 4)[number % 2]})
        categories = [{"id": 9, "name": "cat"}, {"id": 4, "name": "red fox"}]
        whole = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(whole))
    return root


def write_tars(root: Path, splits: dict[str, int]) -> Path:
    """<split>-000.tar of <key>.jpg and <key>.cls, and classes.txt."""
    root.mkdir(parents=True, exist_ok=True)
    for split, count in splits.items():
        with tarfile.open(root / f"{split}-000.tar", "w") as tar:
            for number in range(count):
                file = io.BytesIO()
                Image.fromarray(photo(number)).save(file, "JPEG", quality=95)
                for ending, data in (("jpg", file.getvalue()), ("cls", str(number % 2).encode())):
                    member = tarfile.TarInfo(f"{split}{number:03d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


WRITERS = {
    "imagefolder": write_folders,
    "list": write_lists,
    "inat-json": write_json,
    "image-tars": write_tars,
}

DESCRIPTIONS = {
    "imagefolder": """
name: pets
layout: imagefolder
data: data
splits:
  train: {images: train}
  test: {images: test}
classes: [cat, red fox]
""",
    "list": """
name: pets
layout: imagefolder
data: data
splits:
  train: {list: train.txt}
  test: {list: test.txt}
classes: [cat, red fox]
""",
    "inat-json": """
name: pets
layout: inat-json
data: data
splits:
  train: {annotations: train.json, images: .}
  test: {annotations: test.json, images: .}
classes: {9: cat, 4: red fox}
""",
    "image-tars": """
name: pets
layout: image-tars
data: data
splits:
  train: {tars: "train-{000..000}.tar"}
  test: {tars: .}
classes: [cat, red fox]
""",
}
