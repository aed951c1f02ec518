"""Made scenes with things as files in the official layout of COCO."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from pipelines.demo.made.things import Mask, Thing, ThingScene, make_thing_scene

FIRST_ID = {"train2017": 1, "val2017": 500_001}
"""Of the images of a split."""


def write_thing_split(
    root: Path, split: str, count: int, category_ids: Sequence[int], class_names: Sequence[str]
) -> Path:
    """Writes scenes 0..count-1 of `split` as official COCO files, unless they are there.

    Args:
        category_ids, class_names: COCO's own, in the order of labels; a scene uses a few of them.

    Returns:
        The data set's folder, `root`/coco.
    """
    folder = root / "coco"
    images, annotations = folder / split, folder / "annotations"
    images.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    file = annotations / f"instances_{split}.json"
    names = [f"{FIRST_ID[split] + number:012d}.jpg" for number in range(count)]
    if file.exists() and sorted(path.name for path in images.glob("*.jpg")) == names:
        return folder
    scenes = [make_thing_scene(split, number) for number in range(count)]
    for name, scene in zip(names, scenes, strict=True):
        Image.fromarray(scene.rgb).save(images / name, format="JPEG", quality=92)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(instances_file(split, names, scenes, category_ids, class_names)))
    os.replace(partial, file)  # comes last: a killed demo begins anew
    return folder


def instances_file(
    split: str,
    names: Sequence[str],
    scenes: Sequence[ThingScene],
    category_ids: Sequence[int],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """The content of instances_<split>.json: polygons for single things, run lengths for crowds."""
    id_of = dict(zip(class_names, category_ids, strict=True))
    images = [
        {
            "id": FIRST_ID[split] + number,
            "file_name": name,
            "height": len(scene.rgb),
            "width": len(scene.rgb[0]),
        }
        for number, (name, scene) in enumerate(zip(names, scenes, strict=True))
    ]
    entries = [
        {"image_id": image["id"], "category_id": id_of[thing.name], **_entry(thing)}
        for image, scene in zip(images, scenes, strict=True)
        for thing in scene.things
    ]
    return {
        "info": {"description": "made scenes in the layout of COCO 2017"},
        "licenses": [],
        "images": images,
        "annotations": [
            {"id": FIRST_ID[split] * 100 + number, **entry} for number, entry in enumerate(entries)
        ],
        "categories": [{"id": number, "name": name} for name, number in id_of.items()],
    }


def _entry(thing: Thing) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(thing.mask.astype(np.uint8)))
    polygons = [outline.reshape(-1).tolist() for outline in thing.outlines]
    return {
        "bbox": [float(value) for value in coco_mask.toBbox(encoded)],
        "area": float(coco_mask.area(encoded)),
        "iscrowd": int(thing.crowd),
        "segmentation": _run_lengths(thing.mask) if thing.crowd else polygons,
    }


def _run_lengths(mask: Mask) -> dict[str, Any]:
    """COCO's uncompressed run lengths: columns after each other, zeros first.

    >>> _run_lengths(np.array([[1, 0], [1, 1]], bool))
    {'size': [2, 2], 'counts': [0, 2, 1, 1]}
    """
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *lengths] if flat[0] else lengths}
