"""Stores extracted from made images by the real extractor and the nano backbone with drawn weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import ExtractConfig
from pipelines.verbs import extract_features
from tests.extract.datasets.made_ade20k import encoded, write_split

CROP_PX = 64
WEIGHTS = "random:0"
MODEL = "swinv2-nano"
COLOURS = np.array([[220, 30, 30], [30, 200, 40], [40, 60, 230], [235, 235, 235], [15, 15, 15]], np.float64)
SIZES_HW = ((64, 64), (64, 90), (80, 64))


def write_coloured_data(parent: Path, training: int = 12, validation: int = 4) -> Path:
    """A folder in ADE20K's layout whose classes 1..5 are noisy colours in blocks; returns it."""
    root = parent / "ADEChallengeData2016"
    for split, count in (("training", training), ("validation", validation)):
        pairs = {}
        for number in range(count):
            rng = np.random.default_rng([number, len(split)])
            height, width = SIZES_HW[number % len(SIZES_HW)]
            classes = rng.integers(0, len(COLOURS), (3, 3))
            classes = classes[np.arange(height) * 3 // height][:, np.arange(width) * 3 // width]
            noisy = COLOURS[classes] + rng.normal(0, 12, (height, width, 3))
            rgb = noisy.clip(0, 255).astype(np.uint8)
            pairs[f"{split}_{number}"] = (
                encoded(rgb, "JPEG", quality=95),
                encoded((classes + 1).astype(np.uint8), "PNG"),
            )
        write_split(root, split, pairs)
    return root


def extract_store(
    data: Path,
    stores: Path,
    codec: str,
    split: str,
    views: int | str | None = None,
    weights: str = WEIGHTS,
    **more: Any,
) -> Path:
    """Runs `extract` and returns the store's folder; `more` are further fields of its configuration."""
    sizes = {"crop_size": CROP_PX} if split == "training" else {"short_side": CROP_PX}
    config = ExtractConfig(
        dataset="ade20k",
        model=MODEL,
        weights=weights,
        data=str(data),
        stores=str(stores),
        split=split,
        codec=codec,
        views=views,
        device="cpu",
        workers=1,
        **sizes,
        **more,
    )
    return Path(extract_features.run(config)["store"])
