"""Files of the size and shape of COCO train2017: its annotations, and images that have a length alone.

    python -m benchmarks.planning.made_coco /tmp/coco [--images 118287]

Of COCO it has the number of images and annotations, the share of crowds, the number of points of a polygon
and so the 0.5 GB of the annotation file. Nothing of it can be decoded: planning reads no image.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from extract.datasets.coco import CATEGORIES

IMAGES = 118_287
ANNOTATIONS_AN_IMAGE = 7.27
"""860,001 annotations of 118,287 images."""
WITHOUT = 0.0086
"""Share of images without an annotation: 1,021 of them."""
CROWDS = 0.0118
POINTS = 2.83, 0.75
"""Mean and deviation of the logarithm of a polygon's number of points: 497 MB in all."""


def write(root: Path, images: int = IMAGES, split: str = "train2017") -> Path:
    """Writes both folders below `root`; returns the annotation file."""
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    listed = [_image(rng, 1 + 4 * number + int(rng.integers(4))) for number in range(images)]
    with path.open("w") as file:
        file.write('{"info": {"description": "made"}, "licenses": [], "images": [')
        file.write(", ".join(map(json.dumps, listed)))
        file.write('], "annotations": [')
        order = rng.permutation(images)  # the official file is in no order either
        first = True
        for number in order.tolist():
            for text in _annotations(rng, listed[number], 1 + 100 * number):
                file.write(text if first else f", {text}")
                first = False
        categories = [{"supercategory": "", "id": id_, "name": name} for id_, name in CATEGORIES.items()]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    for image in listed:
        _touch(root / split / str(image["file_name"]), 100_000 + int(image["id"]) % 99_991)
    return path


def _image(rng: np.random.Generator, number: int) -> dict[str, object]:
    width, height = ((640, 480), (480, 640), (640, 427), (500, 375))[int(rng.integers(4))]
    name = f"{number:012d}.jpg"
    return {
        "license": 3,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/train2017/{name}",
        "height": height,
        "width": width,
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": f"http://farm9.staticflickr.com/8186/8119368305_{number:010d}_z.jpg",
        "id": number,
    }


def _annotations(rng: np.random.Generator, image: dict[str, object], first_id: int) -> Iterator[str]:
    width, height, number = int(image["width"]), int(image["height"]), image["id"]  # type: ignore[call-overload]
    count = 0 if rng.random() < WITHOUT else 1 + rng.poisson(ANNOTATIONS_AN_IMAGE - 1)
    for offset in range(count):
        category = list(CATEGORIES)[int(rng.integers(len(CATEGORIES)))]
        if rng.random() < CROWDS:
            runs = rng.integers(1, 200, 120)
            runs = [*runs.tolist(), width * height - int(runs.sum())]
            segmentation: object = {"counts": runs, "size": [height, width]}
            box = [0, 0, width, height]
        else:
            parts = 1 + int(rng.random() < 0.25)
            points = [_polygon(rng, width, height) for _ in range(parts)]
            both = np.concatenate(points)
            low, high = both.min(0), both.max(0)
            box = [round(float(v), 2) for v in (*low, *(high - low + 0.5))]
            segmentation = [part.reshape(-1).round(2).tolist() for part in points]
        yield json.dumps(
            {
                "segmentation": segmentation,
                "area": round(float(box[2] * box[3] * 0.6), 5),
                "iscrowd": int(isinstance(segmentation, dict)),
                "image_id": number,
                "bbox": box,
                "category_id": category,
                "id": first_id + offset,
            }
        )


def _polygon(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    count = max(4, int(np.exp(rng.normal(*POINTS))))
    angle = np.sort(rng.random(count)) * 2 * np.pi
    radius = rng.uniform(4, 60)
    centre = rng.uniform(radius, [width - radius, height - radius])
    return centre + radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _touch(path: Path, size: int) -> None:
    """A file of this length that takes no room."""
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args()
    path = write(options.root, options.images)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
