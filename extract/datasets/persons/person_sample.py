"""A tiny set of persons in COCO's format: two figures of coloured dots on each smooth image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from extract.datasets.layouts.sample_files import SAMPLE_SIZES_HW, image_bytes, sample_image
from stores.keypoints import KeypointRule

_ON_AN_IMAGE = 2


def write_person_split(
    annotations: Path,
    images: Path,
    split: str,
    records: int,
    categories: Mapping[int, str],
    rule: KeypointRule,
    generator: np.random.Generator,
) -> None:
    """The annotation file and the images of so many persons, all of whose keypoints are visible."""
    listed: list[dict[str, Any]] = []
    persons: list[dict[str, Any]] = []
    for folder in (annotations.parent, images):
        folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, records, _ON_AN_IMAGE):
        number = first // _ON_AN_IMAGE + 1
        height, width = SAMPLE_SIZES_HW[number % len(SAMPLE_SIZES_HW)]
        pixels = sample_image(generator, (height, width)).copy()
        for _ in range(min(_ON_AN_IMAGE, records - first)):
            points = generator.integers((2, 2), (width - 2, height - 2), (len(rule), 2))
            for place, (x, y) in enumerate(points.tolist()):
                pixels[y - 1 : y + 2, x - 1 : x + 2] = [(place * 71) % 256, (place * 151) % 256, 255]
            (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
            persons.append(
                {
                    "id": len(persons) + 1,
                    "image_id": number,
                    "category_id": next(iter(categories)),
                    "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1],
                    "area": (x2 - x1 + 1) * (y2 - y1 + 1),
                    "iscrowd": 0,
                    "num_keypoints": len(rule),
                    "keypoints": [value for x, y in points.tolist() for value in (x, y, 2)],
                }
            )
        name = f"{split}_{number:06d}.jpg"
        (images / name).write_bytes(image_bytes(pixels, "JPEG"))
        listed.append({"id": number, "file_name": name, "height": height, "width": width})
    named = [
        {
            "id": number,
            "name": name,
            "keypoints": list(rule.names),
            "skeleton": [[first + 1, second + 1] for first, second in rule.skeleton],
        }
        for number, name in categories.items()
    ]
    annotations.write_text(json.dumps({"images": listed, "annotations": persons, "categories": named}))
