"""Made scenes with stick figures as files in the official layout of COCO's keypoints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from PIL import Image

from extract.datasets.persons.coco_rule import COCO_KEYPOINTS
from extract.datasets.persons.keypoint_files import KEYPOINT_FILE
from pipelines.demo.made.figures import FigureScene, make_figure_scene

FIRST_ID = {"train2017": 1, "val2017": 500_001}
"""Of the images of a split."""
AREA_SHARE = 0.53
"""Area of a person over that of its box, as mmpose takes it where no mask is annotated."""


def write_figure_split(root: Path, split: str, count: int) -> Path:
    """Writes scenes 0..count-1 of `split`, unless they are there. Returns the folder of the data set."""
    folder = root / "coco"
    images, annotations = folder / split, folder / "annotations"
    images.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    file = annotations / KEYPOINT_FILE.format(split=split)
    names = [f"{FIRST_ID[split] + number:012d}.jpg" for number in range(count)]
    if file.exists() and sorted(path.name for path in images.glob("*.jpg")) == names:
        return folder
    scenes = [make_figure_scene(split, number) for number in range(count)]
    for name, scene in zip(names, scenes, strict=True):
        Image.fromarray(scene.rgb).save(images / name, format="JPEG", quality=92)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(keypoint_file(split, names, scenes)))
    os.replace(partial, file)  # comes last: a killed demo begins anew
    return folder


def keypoint_file(split: str, names: list[str], scenes: list[FigureScene]) -> dict[str, Any]:
    """The content of person_keypoints_<split>.json; all joints are visible."""
    images: list[dict[str, Any]] = []
    persons: list[dict[str, Any]] = []
    for number, (name, scene) in enumerate(zip(names, scenes, strict=True)):
        height, width = scene.rgb.shape[:2]
        image_id = FIRST_ID[split] + number
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for figure in scene.figures:
            persons.append(
                {
                    "id": FIRST_ID[split] * 10 + len(persons),
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": list(figure.xywh),
                    "area": AREA_SHARE * figure.xywh[2] * figure.xywh[3],
                    "iscrowd": 0,
                    "num_keypoints": len(figure.joints),
                    "keypoints": [value for x, y in figure.joints.tolist() for value in (x, y, 2)],
                }
            )
    category = {
        "id": 1,
        "name": "person",
        "keypoints": list(COCO_KEYPOINTS.names),
        "skeleton": [[first + 1, second + 1] for first, second in COCO_KEYPOINTS.skeleton],
    }
    return {"images": images, "annotations": persons, "categories": [category]}
