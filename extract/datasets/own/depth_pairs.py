"""Layout `depth`: images and depth maps in folders of equal names, or in pairs of a list."""

from __future__ import annotations

from pathlib import Path

from extract.datasets.depth_data.depth_maps import DepthMaps, depth_facts
from extract.datasets.own.description import Description
from extract.datasets.own.image_pairs import DEPTHS, own_pairs


def open_depths(description: Description, data: Path, split: str, subset: str | None) -> DepthMaps:
    """A split of own depth data.

    Raises DatasetLayoutError where no image has its depth map; says what was looked for and what was found.
    """
    return DepthMaps(
        description.name,
        split,
        split in description.training,
        own_pairs(description, data, split, DEPTHS),
        subset,
        depth_facts(units_per_m=description.scale, max_depth_m=description.max_depth),
        invalid=description.invalid,
        has_truth=description.has_truth(split),
    )
