"""Tiny depth sets: smooth images whose depth is a ramp with a nearer block, for tests and trials."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from extract.datasets.depth_data.depth_maps import Depths
from extract.datasets.layouts.sample_files import SAMPLE_SIZES_HW, image_bytes, sample_image


def sample_depth(
    generator: np.random.Generator, hw: tuple[int, int], facts: Mapping[str, Any], invalid: int = 0
) -> Depths:
    """uint16 (H, W) in the units of `facts`: farther to the top, a nearer block, some pixels not measured."""
    far_m, near_m = 0.6 * facts["max_depth_m"], 0.1 * facts["max_depth_m"]
    metres = np.linspace(far_m, near_m, hw[0])[:, None] * np.ones(hw)
    y, x = (int(generator.integers(0, side // 2)) for side in hw)
    metres[y : y + hw[0] // 3, x : x + hw[1] // 3] = near_m
    depths: Depths = np.rint(metres * facts["units_per_m"]).astype(np.uint16)
    depths[generator.random(hw) < 0.1] = invalid
    return depths


def depth_bytes(depths: npt.NDArray[np.uint16]) -> bytes:
    """A 16-bit gray PNG."""
    file = io.BytesIO()
    Image.fromarray(depths).save(file, "PNG")
    return file.getvalue()


def write_list_sample(
    folder: Path,
    root: Path,
    list_name: str,
    split: str,
    records: int,
    generator: np.random.Generator,
    facts: Mapping[str, Any],
) -> None:
    """Writes so many pairs below `root`, and their list in `folder`."""
    lines = []
    for number in range(1, records + 1):
        hw = SAMPLE_SIZES_HW[number % len(SAMPLE_SIZES_HW)]
        image, depth = f"{split}_room/rgb_{number:05d}.jpg", f"{split}_room/sync_depth_{number:05d}.png"
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(image_bytes(sample_image(generator, hw), "JPEG"))
        (root / depth).write_bytes(depth_bytes(sample_depth(generator, hw, facts)))
        lines.append(f"/{image} /{depth} 518.8579\n")
    (folder / list_name).write_text("".join(lines))
