"""Mask R-CNN learns twenty real images of COCO by heart.

Enough to show that targets, assignments, RoIs, masks and predictions belong together: a mistake in any of
them (labels off by one, x and y swapped, a mirrored mask) leaves it far below. Figures in docs/coco.md.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extract.datasets.coco import CATEGORY_IDS, CLASS_NAMES
from heads import build_head
from heads.contract import Head
from pipelines.config import ExtractConfig
from pipelines.metrics.merge_views import detections
from pipelines.tasks.detection import TASK, Categories, DetectionFigures, figures, truth_of
from pipelines.verbs import extract_features
from stores.reading.reader import Store, open_store

COCO = Categories(CATEGORY_IDS, CLASS_NAMES)

IMAGES, SHORT_PX, EPOCHS, BATCH, PEAK, WARMUP_STEPS = 20, 192, 80, 2, 3e-3, 50
SETTINGS = {
    "width": 64,
    "box_width": 256,
    "mask_width": 64,
    "anchor_scale": 4.0,
    "candidates": 500,
    "proposals": 200,
    "roi_samples": 128,
    "test_candidates": 500,
    "test_proposals": 200,
}


@pytest.mark.ci
@pytest.mark.data
def test_twenty_real_images(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = extract_twenty(samples / "coco", tmp_path)
    with open_store(store) as opened:
        head = train(opened)
        found = measured(head.eval(), opened)
    with capsys.disabled():
        print(f"\nbifpn1 on {found.records} images after {EPOCHS} epochs: {found.line()}")
    assert found.records == IMAGES
    scores = found.scores()
    assert scores["box AP50"] >= 0.8
    assert scores["mask AP50"] >= 0.7


def extract_twenty(data: Path, folder: Path) -> Path:
    """A store of the training images whose smallest object takes the largest share of them, as test views.

    At this size others would be a few pixels. They are called val2017: test rows hold the untouched truth.
    """
    content = json.loads((data / "annotations" / "instances_train2017.json").read_text())
    images = {image["id"]: image for image in content["images"]}
    least: dict[int, float] = {}
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        share = annotation["area"] / (image["height"] * image["width"])
        least[image["id"]] = min(least.get(image["id"], 1.0), share)
    chosen = sorted(least, key=lambda image_id: least[image_id])[-IMAGES:]
    for name in ("val2017", "annotations"):
        (folder / "coco" / name).mkdir(parents=True)
    for image_id in chosen:
        shutil.copy(data / "train2017" / images[image_id]["file_name"], folder / "coco" / "val2017")
    kept = {
        **content,
        "images": [images[image_id] for image_id in chosen],
        "annotations": [each for each in content["annotations"] if each["image_id"] in chosen],
    }
    (folder / "coco" / "annotations" / "instances_val2017.json").write_text(json.dumps(kept))
    config = ExtractConfig(
        dataset="coco",
        data=str(folder / "coco"),
        split="val2017",
        model="swinv2-nano",
        stores=str(folder / "stores"),
        short_side=SHORT_PX,
        device="cpu",
    )
    return Path(extract_features.run(config)["store"])


def train(store: Store) -> Head:
    head = build_head("bifpn1", "detection", store.pyramid, 80, seed=0, **SETTINGS)
    optimizer = torch.optim.AdamW(head.parameters(), lr=PEAK, weight_decay=0.01)
    batches = list(epochs(store))
    for step, rows in enumerate(batches):
        rate = PEAK * min(1.0, (step + 1) / WARMUP_STEPS) * (1 - step / len(batches))
        optimizer.param_groups[0]["lr"] = rate
        features = {level: torch.from_numpy(x) for level, x in store.read_features(rows).items()}
        targets = [
            {name: torch.from_numpy(array.copy()) for name, array in row.items()}
            for row in store.read_targets(
                rows, [name for name in TASK.training_targets if name in store.targets]
            )
        ]
        losses = head.losses(features, targets, sizes(store, rows), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 10.0)
        optimizer.step()
    return head


def epochs(store: Store) -> Iterator[list[int]]:
    """Batches of rows of one padded size, each row once an epoch."""
    by_size: dict[str, list[int]] = {}
    for row in range(len(store)):
        by_size.setdefault(store.bins[row], []).append(row)
    draw = random.Random(0)
    for _ in range(EPOCHS):
        batches = []
        for rows in by_size.values():
            shuffled = draw.sample(rows, len(rows))
            batches += [shuffled[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        yield from draw.sample(batches, len(batches))


def sizes(store: Store, rows: list[int]) -> list[tuple[int, int]]:
    return [(int(height), int(width)) for height, width in store.valid_hw[rows]]


def measured(head: Head, store: Store) -> DetectionFigures:
    truths, found = [], []
    for row in range(len(store)):
        features = {level: torch.from_numpy(x) for level, x in store.read_features([row]).items()}
        original_hw: Any = tuple(np.asarray(store.original_hw[row]).tolist())
        prediction = head.predict(features, sizes(store, [row]), [original_hw])[0]
        found.append(detections(prediction, original_hw))
        truths.append(truth_of(store.read_targets([row], TASK.test_targets)[0], original_hw))
    return figures(truths, found, "single", COCO)
