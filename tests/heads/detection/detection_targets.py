"""Synthetic instances for the tests of detection heads: ellipses as stored, and as full bitmaps."""

import numpy as np
import torch
from torch import Tensor


def pack_instances(
    masks: list[np.ndarray], labels: list[int], boxes: np.ndarray | None = None
) -> dict[str, Tensor]:
    """A target of boolean bitmaps (y, x), each with a pixel set, in the form that heads take."""
    crops, origins, tight = [], [], []
    for mask in masks:
        ys, xs = np.nonzero(mask)
        top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
        crops.append(mask[top:bottom, left:right])
        origins.append((top, left))
        tight.append((left, top, right, bottom))
    bits = [np.packbits(crop) for crop in crops]
    return {
        "boxes": torch.tensor(np.array(tight if boxes is None else boxes, dtype=np.float32)).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "mask_bits": torch.from_numpy(np.concatenate([*bits, np.zeros(0, np.uint8)])),
        "mask_hw": torch.tensor([crop.shape for crop in crops], dtype=torch.int32).reshape(-1, 2),
        "mask_yx": torch.tensor(np.array(origins, dtype=np.int32)).reshape(-1, 2),
        "crowd_boxes": torch.zeros(0, 4),
    }


def random_masks(hw: tuple[int, int], count: int, random: np.random.Generator) -> list[np.ndarray]:
    """Ellipses, some cut off by the image's border."""
    grid_y, grid_x = np.mgrid[: hw[0], : hw[1]] + 0.5
    masks = []
    while len(masks) < count:
        centre = random.uniform(0, 1, 2) * hw
        radius = random.uniform(0.06, 0.35, 2) * hw + 1
        mask = ((grid_y - centre[0]) / radius[0]) ** 2 + ((grid_x - centre[1]) / radius[1]) ** 2 <= 1
        if mask.sum() >= 4:
            masks.append(mask)
    return masks


def random_targets(valid_hw: list[tuple[int, int]], classes: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """One to five instances an image, and a stuff map of three classes."""
    random = np.random.default_rng(seed)
    targets = []
    for hw in valid_hw:
        count = int(random.integers(1, 6))
        labels = random.integers(0, classes, count).tolist()
        stuff = torch.from_numpy(random.integers(0, 3, hw).astype(np.uint8))
        targets.append({**pack_instances(random_masks(hw, count, random), labels), "stuff": stuff})
    return targets


def empty_target() -> dict[str, Tensor]:
    """The target of an image without instances; one crowd, which heads do not read."""
    return {**pack_instances([], []), "crowd_boxes": torch.tensor([[4.0, 4.0, 90.0, 30.0]])}
