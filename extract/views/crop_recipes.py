"""View recipes of classification: random boxes of a photograph to train on, its centre to test on.

`probe` is the RandomResizedCrop of MAE's linear probe (facebookresearch/mae@efb2a80 util/crop.py: one draw,
the box clamped to the image), `probe-tv` torchvision's (ten draws, then the centre), which DINO takes.
`single` is torchvision's Resize and CenterCrop, and `centre` the same view of a training split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from extract.sources.record import Record
from extract.views.crop_size import CropSize, check_crop, covering, crop_hw, size_identity
from extract.views.crop_view import CropView, crop_rule
from extract.views.recipes import (
    MAX_SIDE_PX,
    RecipeMaker,
    SeededViews,
    ViewRecipe,
    check_short_side,
    draw_corner,
)
from extract.views.seeded_draws import Draws, ViewDraws
from extract.views.view import INTERPOLATIONS, Hw

CROP_PX = 224
SHORT_TO_CROP = 256 / 224
"""Photographs are resized to a short side so much longer than the crop of test views."""
LONGEST = 32
"""Long side to short side of a photograph, at most, of which test views are taken."""
_BICUBIC = INTERPOLATIONS[1]
CLAMPED, RETRIED = "clamped", "retried"


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomBoxes(SeededViews):
    """Training views: a random box of the source, resized to a square; flip."""

    name: str
    crop_px: CropSize = CROP_PX
    """Side of a square view, or height and width; multiples of 32."""
    area_range: tuple[float, float] = (0.08, 1.0)
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3)
    """Width to height of the box."""
    boxes: str = CLAMPED
    """What becomes of a box that is larger than the source: clamped to it, or drawn again up to ten times,
    then the largest box in the middle of an aspect within the range."""
    tries: int = 10
    flip: float = 0.5
    """Probability."""

    def __post_init__(self) -> None:
        check_crop(self.crop_px, MAX_SIDE_PX)

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            "kind": "crop",
            **size_identity(self.crop_px),
            "area_range": list(self.area_range),
            "aspect_range": list(self.aspect_range),
            "boxes": self.boxes,
            "tries": self.tries if self.boxes == RETRIED else 1,
            "flip": self.flip,
            "interpolation": _BICUBIC,
            "replay": crop_rule(),
        }

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> CropView:
        draws = ViewDraws(dataset, record.key, index, seed)
        corner, size = self._box(draws("crop"), record.original_hw)
        return CropView(
            source_yx=corner,
            source_hw=size,
            resized_hw=crop_hw(self.crop_px),
            valid_hw=crop_hw(self.crop_px),
            padded_hw=crop_hw(self.crop_px),
            flip=draws("flip").happens(self.flip),
        )

    def _box(self, draws: Draws, source: Hw) -> tuple[Hw, Hw]:
        """Corner and size."""
        for _ in range(self.tries if self.boxes == RETRIED else 1):
            area = draws.uniform(*self.area_range) * source[0] * source[1]
            aspect = math.exp(draws.uniform(*map(math.log, self.aspect_range)))
            height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if self.boxes == CLAMPED:
                height, width = (
                    min(max(1, side), most) for side, most in zip((height, width), source, strict=True)
                )
            if 1 <= height <= source[0] and 1 <= width <= source[1]:
                return draw_corner(draws, source, (height, width)), (height, width)
        return _middle(source, self.aspect_range)


def _middle(source: Hw, aspect_range: tuple[float, float]) -> tuple[Hw, Hw]:
    """The largest box in the middle whose aspect is in range, as torchvision's RandomResizedCrop takes it.

    >>> _middle((100, 400), (0.75, 4 / 3)), _middle((400, 300), (0.75, 4 / 3))
    (((0, 133), (100, 133)), ((0, 0), (400, 300)))
    """
    height, width = source
    aspect = width / height
    if aspect < aspect_range[0]:
        height = min(height, round(width / aspect_range[0]))
    elif aspect > aspect_range[1]:
        width = min(width, round(height * aspect_range[1]))
    return ((source[0] - height) // 2, (source[1] - width) // 2), (height, width)


@dataclass(frozen=True, kw_only=True, slots=True)
class CentreCrops:
    """Test views: the middle of the photograph, the same for every seed; a second view is its mirror
    image."""

    frames: ClassVar[int | None] = None
    looks_at_truth: ClassVar[bool] = False
    name: str
    fixed_count: int | None = 1
    """None: views of a training split, one or two."""
    crop_px: CropSize = CROP_PX
    """Side of a square view, or height and width; multiples of 32."""
    short_px: int = round(CROP_PX * SHORT_TO_CROP)
    """Short side of the photograph that the crop is taken of."""

    def __post_init__(self) -> None:
        check_crop(self.crop_px, MAX_SIDE_PX)
        check_short_side(self.short_px, MAX_SIDE_PX)
        if self.short_px < (least_px := min(crop_hw(self.crop_px))):
            raise ValueError(f"a short side of {self.short_px} px is less than the crop's {least_px}")

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            "kind": "crop",
            **size_identity(self.crop_px),
            "short_px": self.short_px,
            "interpolation": _BICUBIC,
            "replay": crop_rule(),
        }

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> CropView:
        """View 1 is the mirror image of view 0. Raises ValueError for a third one."""
        if index > 1:
            raise ValueError(f"view recipe {self.name} has 1 or 2 views of a record, not {index + 1}")
        start, size = _not_too_long(record.original_hw)
        crop = crop_hw(self.crop_px)
        resized = covering(_short_side(size, self.short_px), crop)
        corner = round((resized[0] - crop[0]) / 2), round((resized[1] - crop[1]) / 2)
        return CropView(
            source_yx=start,
            source_hw=size,
            resized_hw=resized,
            crop_yx=corner,
            valid_hw=crop,
            padded_hw=crop,
            flip=index == 1,
        )


def _not_too_long(source: Hw) -> tuple[Hw, Hw]:
    """Corner and size of what is resized: the source, of one longer than LONGEST its middle, because a strip
    of one pixel's height would be resized to gigabytes.

    >>> _not_too_long((375, 500)), _not_too_long((1, 9000))
    (((0, 0), (375, 500)), ((0, 4484), (1, 32)))
    """
    most = LONGEST * min(source)
    height, width = min(source[0], most), min(source[1], most)
    return ((source[0] - height) // 2, (source[1] - width) // 2), (height, width)


def _short_side(hw: Hw, short_px: int) -> Hw:
    """The size with that short side, the long one rounded down, as torchvision's Resize.

    >>> _short_side((375, 500), 256), _short_side((500, 333), 256)
    ((256, 341), (384, 256))
    """
    height, width = hw
    if height <= width:
        return short_px, int(short_px * width / height)
    return int(short_px * height / width), short_px


def _training(name: str, boxes: str, crop_size: CropSize | None, short_side: int | None) -> ViewRecipe:
    if short_side is not None:
        raise ValueError(
            f"view recipe {name} takes boxes of the source: --crop-size is its one size, no short side"
        )
    return RandomBoxes(name=name, crop_px=CROP_PX if crop_size is None else crop_size, boxes=boxes)


def _centre(
    name: str, fixed_count: int | None, crop_size: CropSize | None, short_side: int | None
) -> ViewRecipe:
    smallest = min(px for px in (CROP_PX, short_side) if px is not None)
    crop_px = smallest if crop_size is None else crop_size
    short_px = round(min(crop_hw(crop_px)) * SHORT_TO_CROP) if short_side is None else short_side
    return CentreCrops(name=name, fixed_count=fixed_count, crop_px=crop_px, short_px=short_px)


VIEW_RECIPES: Mapping[str, RecipeMaker] = {
    "probe": partial(_training, "probe", CLAMPED),
    "probe-tv": partial(_training, "probe-tv", RETRIED),
    "centre": partial(_centre, "centre", None),
    "single": partial(_centre, "single", 1),
}
"""Makers of recipes from (crop size, short side before the crop); None for 224 px."""
TRAINING_VIEWS = ("probe", "probe-tv", "centre")
TEST_VIEWS = ("single",)
TEST_VIEWS_OF_TRAINING = {"single": "centre"}
"""Which training views are those of tests, for `--views single` of a training split."""
PROBE_LEVELS = ("probe",)
"""What stores of such views keep by default: see extract.backbones.levels."""
DEFAULT_WINDOWS = {224: 7}
"""Windows of Swin backbones under `cover`, by the side of a view: they divide every map of 224 px."""
