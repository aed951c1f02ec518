"""Mask2Former's own training views of ADE20K, `--view-recipe ade20k-m2f`.

Source: facebookresearch/Mask2Former mask2former/data/dataset_mappers/mask_former_semantic_dataset_mapper.py
with configs/ade20k/semantic-segmentation/Base-ADE20K-SemanticSegmentation.yaml, and what these call in
detectron2: ResizeShortestEdge, RandomCrop, ColorAugSSDTransform, RandomFlip. What differs from `ade20k`
(mmseg): the short side takes one of 16 sizes, a crop is never drawn again for its classes
(SINGLE_CATEGORY_MAX_AREA is 1), and the hue may move by 18 either way. Deviations: the padding is zero after
normalisation, there grey 128 before it (0.07 to 0.43 after it); labels are resized by the nearest cell centre
instead of Pillow's steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from extract.sources.record import Record
from extract.views.colour import HUE_DELTA, colour_params, colour_rule, draw_colour
from extract.views.crop_size import CropSize, check_crop, crop_hw, size_in_identity, within_crop
from extract.views.recipes import (
    CROP_PX,
    LONG_TO_SHORT,
    MAX_SIDE_PX,
    SeededViews,
    check_short_side,
    crop_params,
    draw_corner,
    rounded_sides,
)
from extract.views.seeded_draws import Floats, Ints, ManyViewDraws, ViewDraws
from extract.views.view import Hw, View, replay_rule

RATIOS = tuple(range(5, 21))
"""Of the short side, in tenths: MIN_SIZE_TRAIN is `[int(x * 0.1 * 512) for x in range(5, 21)]`."""
HUES = 2 * HUE_DELTA + 1
"""Python's randint includes its end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mask2FormerCrops(SeededViews):
    """One of 16 short sides, a crop, flip, colour. All are padded to the crop's size: one bin."""

    name: str = "ade20k-m2f"
    crop_px: CropSize = CROP_PX
    """Side of a square crop, or height and width; multiples of 32."""
    short_px: int | None = None
    """Short side at ratio 1; None: the crop's. The long side is at most four times as long."""
    flip: float = 0.5
    """Probability."""
    revision: int | None = None
    """By which its views are replayed; None: today's."""

    def __post_init__(self) -> None:
        check_crop(self.crop_px, MAX_SIDE_PX)
        check_short_side(self.base_short_px, MAX_SIDE_PX)

    @property
    def base_short_px(self) -> int:
        return min(crop_hw(self.crop_px)) if self.short_px is None else self.short_px

    @property
    def short_sides_px(self) -> tuple[int, ...]:
        return tuple(int(tenths * 0.1 * self.base_short_px) for tenths in RATIOS)

    @property
    def long_px(self) -> int:
        """The longest that a long side may be: MAX_SIZE_TRAIN."""
        return LONG_TO_SHORT * self.base_short_px

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            "scale_px": [self.long_px, self.base_short_px],
            "short_sides_px": list(self.short_sides_px),
            "crop_px": size_in_identity(self.crop_px),
            "flip": self.flip,
            "colour": {**colour_rule(), "rule": "detectron2 ColorAugSSDTransform, 8-bit HSV", "hues": HUES},
            "replay": replay_rule(self.revision),
        }

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> View:
        draws = ViewDraws(dataset, record.key, index, seed)
        short_px = self.short_sides_px[draws("scale").integer(len(RATIOS))]
        resized = shortest_edge(record.original_hw, short_px, self.long_px)
        crop = crop_hw(self.crop_px)
        valid = within_crop(resized, crop)
        return View(
            resized_hw=resized,
            crop_yx=draw_corner(draws("crop"), resized, valid),
            valid_hw=valid,
            padded_hw=crop,
            flip=draws("flip").happens(self.flip),
            revision=self.revision,
            colour=draw_colour(draws("colour"), hues=HUES),
        )

    def drawn(self, dataset: str, keys: Sequence[str], original_hw: Ints, index: int, seed: int) -> Floats:
        """See `SeededViews`."""
        draws = ManyViewDraws(dataset, keys, index, seed)
        short_px = np.array(self.short_sides_px)[draws("scale").integer(len(RATIOS))]
        scaled = original_hw * (short_px / original_hw.min(axis=1))[:, None]
        height, width = original_hw.T
        is_wide = height < width
        sides = np.where(np.stack([is_wide, ~is_wide], axis=1), short_px[:, None], scaled)
        longest = sides.max(axis=1)
        shrink = np.where(longest > self.long_px, self.long_px / longest, 1.0)
        colour = colour_params(draws("colour"), hues=HUES)
        return crop_params(
            draws, rounded_sides(sides * shrink[:, None]), crop_hw(self.crop_px), self.flip, colour
        )


def shortest_edge(original_hw: Hw, short_px: int, long_px: int) -> Hw:
    """The size that detectron2's ResizeShortestEdge gives an image; a side never becomes 0 here.

    >>> shortest_edge((512, 683), 256, 2048), shortest_edge((100, 900), 512, 2048)
    ((256, 342), (228, 2048))
    """
    height, width = original_hw
    scale = short_px / min(original_hw)
    new_h, new_w = (short_px, scale * width) if height < width else (scale * height, short_px)
    if max(new_h, new_w) > long_px:
        shrink = long_px / max(new_h, new_w)
        new_h, new_w = new_h * shrink, new_w * shrink
    return max(1, int(new_h + 0.5)), max(1, int(new_w + 0.5))
