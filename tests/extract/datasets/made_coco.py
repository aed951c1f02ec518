"""Small COCO data sets in the official layout: shapes of a colour for each class, in front of noise.

A thing is a box, a triangle, an ellipse or a cross, each its own category, so that a small backbone can
distinguish them. Official fields and ids are kept: category ids with gaps, crowd regions as run lengths,
objects in two parts, an image without annotations, and an image list in another order than the ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from extract.datasets.coco import CATEGORIES
from tests.extract.datasets.made_ade20k import encoded, made_image

SIZES_HW = ((96, 128), (128, 96), (80, 120), (128, 128))
SHAPES = {1: "box", 13: "triangle", 37: "ellipse", 90: "cross"}
"""By category id: person, stop sign, sports ball, toothbrush."""
COLOURS = {1: (215, 60, 40), 13: (240, 210, 60), 37: (60, 190, 90), 90: (70, 90, 220)}
SPLITS = {"train2017": 0, "val2017": 1}


def outline(shape: str, box_xywh: Sequence[float]) -> np.ndarray:
    """A polygon that fills a box, float64 (points, 2), x y."""
    x, y, w, h = box_xywh
    if shape == "ellipse":
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        unit = np.stack([0.5 + 0.5 * np.cos(angles), 0.5 + 0.5 * np.sin(angles)], axis=1)
    else:
        third = 1 / 3
        cross = [(third, 0), (1 - third, 0), (1 - third, third), (1, third), (1, 1 - third)]
        cross += [(1 - third, 1 - third), (1 - third, 1), (third, 1), (third, 1 - third), (0, 1 - third)]
        corners = {
            "box": [(0, 0), (1, 0), (1, 1), (0, 1)],
            "triangle": [(0.5, 0), (1, 1), (0, 1)],
            "cross": [*cross, (0, third), (third, third)],
        }
        unit = np.array(corners[shape])
    return unit * (w, h) + (x, y)


def annotation(
    number: int, image: Mapping[str, Any], category: int, parts: list[list[float]]
) -> dict[str, Any]:
    """An entry of the official file for an object of these polygons, with its box and area."""
    points = np.concatenate([np.array(part).reshape(-1, 2) for part in parts])
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    drawn = coco_mask.merge(coco_mask.frPyObjects(parts, image["height"], image["width"]))
    return {
        "segmentation": parts,
        "area": float(coco_mask.area(drawn)),
        "iscrowd": 0,
        "image_id": image["id"],
        "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
        "category_id": category,
        "id": number,
    }


def crowd_annotation(
    number: int, image: Mapping[str, Any], category: int, mask: np.ndarray
) -> dict[str, Any]:
    """An entry for a crowd region: uncompressed run lengths, column by column, as in the official file."""
    flat = mask.reshape(-1, order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    runs = np.diff([0, *edges, len(flat)]).tolist()
    drawn = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "segmentation": {"counts": runs, "size": [image["height"], image["width"]]},
        "area": float(coco_mask.area(drawn)),
        "iscrowd": 1,
        "image_id": image["id"],
        "bbox": coco_mask.toBbox(drawn).tolist(),
        "category_id": category,
        "id": number,
    }


def made_scene(image: Mapping[str, Any], first_id: int, seed: int, things: int) -> tuple[bytes, list[Any]]:
    """A JPEG of so many things, later ones in front, and their annotations. Every third id is a box in two
    parts; of four things or more the first is a crowd region."""
    rng = np.random.default_rng([seed, 7])
    hw = image["height"], image["width"]
    limits = np.array([hw[1], hw[0]])
    scene = Image.fromarray((made_image(seed, hw) // 4 + 96).astype(np.uint8))
    pen, found = ImageDraw.Draw(scene), []
    for number in range(first_id, first_id + things):
        category = 1 if number % 3 == 0 else int(rng.choice(list(SHAPES)))
        side = rng.uniform(0.25, 0.5, 2) * min(hw)
        corner = rng.uniform(-0.4 * side, limits - 0.6 * side)  # some reach over the border
        boxes = [(*corner, *side)]
        if number % 3 == 0:
            boxes = [(corner[0] + shift * side[0], corner[1], 0.4 * side[0], side[1]) for shift in (0.0, 0.6)]
        parts = [np.clip(outline(SHAPES[category], box), 0, limits) for box in boxes]
        parts = [part for part in parts if np.ptp(part, axis=0).min() > 1]
        for part in parts:
            pen.polygon([tuple(point) for point in part.tolist()], fill=COLOURS[category])
        entry = annotation(number, image, category, [part.round(2).reshape(-1).tolist() for part in parts])
        if things >= 4 and number == first_id:
            mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(entry["segmentation"], *hw)))
            entry = crowd_annotation(number, image, category, mask)
        found.append(entry)
    return encoded(scene, "JPEG", quality=95), found


def made_split(split: str, count: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The annotation file of `count` images, the third without annotations; the JPEGs by file name."""
    images, annotations, files = [], [], {}
    for number in range(count):
        image_id = (
            1 + (number * 7919 + 13 * SPLITS[split]) % 100003
        )  # the list is not in the order of the ids
        hw = SIZES_HW[number % len(SIZES_HW)]
        image = {
            "license": 1,
            "file_name": f"{image_id:012d}.jpg",
            "height": hw[0],
            "width": hw[1],
            "id": image_id,
        }
        things = 0 if number == 2 else 1 + number % 5
        jpeg, found = made_scene(image, 10 * image_id, number + 1000 * SPLITS[split], things)
        images.append(image)
        annotations += found
        files[image["file_name"]] = jpeg
    categories = [
        {"supercategory": "thing", "id": number, "name": name} for number, name in CATEGORIES.items()
    ]
    whole = {
        "info": {},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    return whole, files


def write_split(root: Path, split: str, whole: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """The annotation file and images of a split, in the official folders."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(whole))
    (root / split).mkdir(exist_ok=True)
    for name, data in files.items():
        (root / split / name).write_bytes(data)


def write_folder(parent: Path, train: int = 12, val: int = 5) -> Path:
    """A folder `coco` with so many images in its splits; returns it."""
    for split, count in (("train2017", train), ("val2017", val)):
        write_split(parent / "coco", split, *made_split(split, count))
    return parent / "coco"


def tar_members(whole: Mapping[str, Any], files: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    """The same data as members of a tar, `key.jpg` and `key.json`."""
    members = []
    for position, image in enumerate(whole["images"]):
        key = image["file_name"].removesuffix(".jpg")
        entries = [entry for entry in whole["annotations"] if entry["image_id"] == image["id"]]
        listed = {**image, "listed": [position, len(whole["images"])]}
        members.append((f"{key}.jpg", files[image["file_name"]]))
        members.append((f"{key}.json", json.dumps({"image": listed, "annotations": entries}).encode()))
    return members
