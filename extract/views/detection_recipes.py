"""View recipes of detection: large-scale jittering to train on, keep-ratio whole images to test on.

LargeScaleJitter is mmdet's (mmdetection@19bceba configs/common/lsj-100e_coco-instance.py): a scale between
0.1 and 2, a crop of 1024 px, flip. Deviation: images are resized by Pillow with antialiasing (see
`extract.views.view`). KeepRatio is the papers' 800/1333 test; the papers do not give the sizes of the
multi-scale test; ours are of the range that Swin's HTC++ trains with (short side 400 to 1400, long side up to
1600).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from extract.sources.record import Record
from extract.views.crop_size import CropSize, check_crop, crop_hw, size_in_identity, within_crop
from extract.views.instances import mask_rule
from extract.views.recipes import (
    MAX_SIDE_PX,
    SeededViews,
    crop_params,
    draw_corner,
    refuse_crop,
    rounded_sides,
)
from extract.views.seeded_draws import Floats, Ints, ManyViewDraws, ViewDraws
from extract.views.view import WHOLE_REVISION, Hw, View, keep_ratio, padded_up, replay_rule

CROP_PX = 1024
SHORT_PX, LONG_PX = 800, 1333
MS_SHORT_PX, MS_LONG_PX = (600, 800, 1000, 1200, 1400), 1600


@dataclass(frozen=True, kw_only=True, slots=True)
class LargeScaleJitter(SeededViews):
    """Views that show an image at a tenth to twice the crop's size. All are padded to the crop's size: one
    bin."""

    name: str
    crop_px: CropSize = CROP_PX
    """Side of a square crop, or height and width, which the image fits at ratio 1; multiples of 32."""
    ratio_range: tuple[float, float] = (0.1, 2.0)
    flip: float = 0.5
    """Probability."""
    revision: int | None = None
    """By which its views are replayed; None: today's."""

    def __post_init__(self) -> None:
        check_crop(self.crop_px, MAX_SIDE_PX)

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            "scale_px": sorted(crop_hw(self.crop_px), reverse=True),
            "ratio_range": list(self.ratio_range),
            "crop_px": size_in_identity(self.crop_px),
            "flip": self.flip,
            "replay": replay_rule(self.revision),
            "masks": mask_rule(),
        }

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> View:
        draws = ViewDraws(dataset, record.key, index, seed)
        ratio, crop = draws("scale").uniform(*self.ratio_range), crop_hw(self.crop_px)
        resized = fitting(record.original_hw, (int(crop[0] * ratio), int(crop[1] * ratio)))
        valid = within_crop(resized, crop)
        return View(
            resized_hw=resized,
            crop_yx=draw_corner(draws("crop"), resized, valid),
            valid_hw=valid,
            padded_hw=crop,
            flip=draws("flip").happens(self.flip),
            revision=self.revision,
        )

    def drawn(self, dataset: str, keys: Sequence[str], original_hw: Ints, index: int, seed: int) -> Floats:
        """See `SeededViews`."""
        draws, crop = ManyViewDraws(dataset, keys, index, seed), crop_hw(self.crop_px)
        ratio = draws("scale").uniform(*self.ratio_range)
        bounds = np.stack([(side * ratio).astype(np.int64) for side in crop], axis=1)
        factor = (bounds / original_hw).min(axis=1)
        return crop_params(draws, rounded_sides(original_hw * factor[:, None]), crop, self.flip)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepRatio:
    """Test views: the whole image at several sizes, padded to multiples of 32; the same for every seed."""

    frames = None
    looks_at_truth = False
    name: str
    sizes_px: tuple[tuple[int, int], ...] = ((LONG_PX, SHORT_PX),)
    """Bounds of the long and of the short side of each size; the image is as large as both allow."""
    flips: tuple[bool, ...] = (False,)

    def __post_init__(self) -> None:
        for long_px, short_px in self.sizes_px:
            if not 2 <= short_px <= long_px <= MAX_SIDE_PX:
                raise ValueError(f"sides of {short_px} and {long_px} px, expected 2 to {MAX_SIDE_PX}")

    @property
    def fixed_count(self) -> int | None:
        return len(self.sizes_px) * len(self.flips)

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            "sizes_px": [list(size) for size in self.sizes_px],
            "flips": list(self.flips),
            "replay": replay_rule(WHOLE_REVISION),
            "masks": mask_rule(),
        }

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> View:
        size, flip = divmod(index, len(self.flips))
        resized = keep_ratio(record.original_hw, *self.sizes_px[size])
        return View(resized_hw=resized, valid_hw=resized, padded_hw=padded_up(resized), flip=self.flips[flip])


def fitting(original_hw: Hw, size_hw: Hw) -> Hw:
    """The largest size of the same aspect that fits a size; a side never becomes 0.

    Source: detectron2's ResizeScale; for squares it is `keep_ratio`, mmcv's.

    >>> fitting((1024, 2048), (512, 1024)), fitting((2048, 1024), (512, 1024)), fitting((300, 400), (64, 64))
    ((512, 1024), (512, 256), (48, 64))
    """
    factor = min(new / old for new, old in zip(size_hw, original_hw, strict=True))
    height, width = (max(1, int(side * factor + 0.5)) for side in original_hw)
    return height, width


def large_scale_jitter(
    crop_size: CropSize | None, short_side: int | None, *, name: str = "coco"
) -> LargeScaleJitter:
    """Recipe `coco`, or the same under another name.

    Raises ValueError for a short side, which it does not have, or an impossible crop.
    """
    if short_side is not None:
        raise ValueError(
            f"large-scale jittering fits images into its crop: no short_side, found {short_side}"
        )
    return LargeScaleJitter(name=name, crop_px=CROP_PX if crop_size is None else crop_size)


def single(crop_size: CropSize | None, short_side: int | None) -> KeepRatio:
    """Recipe `single`: 800/1333, or the same in proportion to another short side. Raises ValueError for a
    crop."""
    refuse_crop("single", crop_size)
    return KeepRatio(name="single", sizes_px=(_in_proportion(SHORT_PX, LONG_PX, short_side),))


def ms_flip(crop_size: CropSize | None, short_side: int | None) -> KeepRatio:
    """Recipe `ms-flip`: short sides 600 to 1400, long ones up to 1600, each as it is and flipped; all in
    proportion to another short side than 800. Raises ValueError for a crop."""
    refuse_crop("ms-flip", crop_size)
    sizes = tuple(_in_proportion(short_px, MS_LONG_PX, short_side) for short_px in MS_SHORT_PX)
    return KeepRatio(name="ms-flip", sizes_px=sizes, flips=(False, True))


def _in_proportion(short_px: int, long_px: int, short_side: int | None) -> tuple[int, int]:
    if short_side is None:
        return long_px, short_px
    return round(long_px * short_side / SHORT_PX), round(short_px * short_side / SHORT_PX)
