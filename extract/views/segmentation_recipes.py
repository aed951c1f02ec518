"""View recipes of segmentation by a crop size and a short side, None for the papers' 512 px; sliding windows.

All raise ValueError for a size that a recipe cannot have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from extract.sources.record import Record
from extract.views.crop_size import CropSize, check_crop, crop_hw, size_in_identity, within_crop
from extract.views.mask2former_recipes import Mask2FormerCrops
from extract.views.recipes import (
    CROP_PX,
    LONG_TO_SHORT,
    MAX_SIDE_PX,
    SHORT_PX,
    RandomCrops,
    ViewRecipe,
    WholeImages,
    check_short_side,
    refuse_crop,
)
from extract.views.view import MULTIPLE_PX, Hw, View, keep_ratio, replay_rule

MS_RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlidingWindows:
    """Test views of equal crops over the whole image at one size, each a view of its own; the same for every
    seed. As mmseg's slide_inference and DINOv3's: a grid of steps, an axis's last crop flush with its end.
    """

    frames = None
    looks_at_truth = False
    name: str
    crop_px: CropSize = CROP_PX
    """Side of a square crop, or height and width; a smaller image is padded to it."""
    stride_px: int | None = None
    """Step from crop to crop along both axes; None: two thirds of the crop's short side, 341 px of 512."""
    short_px: int | None = None
    """Short side of the image; None: the crop's. The long side is at most four times as long."""

    def __post_init__(self) -> None:
        check_crop(self.crop_px, MAX_SIDE_PX)
        check_short_side(self.base_short_px, MAX_SIDE_PX)
        most_px = min(crop_hw(self.crop_px))
        if not 1 <= self.step_px <= most_px:
            raise ValueError(f"slide_stride {self.step_px}: expected 1 to {most_px} px, the side of the crop")

    @property
    def base_short_px(self) -> int:
        return min(crop_hw(self.crop_px)) if self.short_px is None else self.short_px

    @property
    def step_px(self) -> int:
        return 2 * min(crop_hw(self.crop_px)) // 3 if self.stride_px is None else self.stride_px

    @property
    def fixed_count(self) -> int | None:
        """Of the widest or the highest image there may be; `views_of` has fewer for others."""
        sides = self.base_short_px, self.base_short_px * LONG_TO_SHORT
        return max(len(self._corners(sides)), len(self._corners(sides[::-1])))

    def views_of(self, record: Record) -> int:
        """Crops that cover a record's image."""
        return len(self._corners(self._resized(record)))

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            "scale_px": [self.base_short_px * LONG_TO_SHORT, self.base_short_px],
            "crop_px": size_in_identity(self.crop_px),
            "stride_px": self.step_px,
            "replay": replay_rule(),
        }

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> View:
        resized, crop = self._resized(record), crop_hw(self.crop_px)
        return View(
            resized_hw=resized,
            crop_yx=self._corners(resized)[index],
            valid_hw=within_crop(resized, crop),
            padded_hw=crop,
        )

    def _resized(self, record: Record) -> Hw:
        short_px = self.base_short_px
        return keep_ratio(record.original_hw, short_px * LONG_TO_SHORT, short_px)

    def _corners(self, resized: Hw) -> list[Hw]:
        rows, columns = (
            _starts(side, crop, self.step_px)
            for side, crop in zip(resized, crop_hw(self.crop_px), strict=True)
        )
        return [(row, column) for row in rows for column in columns]


def with_stride(recipe: ViewRecipe, stride_px: int) -> ViewRecipe:
    """Sliding windows of another stride. Raises ValueError for views that have none, and for one beyond the
    crop."""
    if not isinstance(recipe, SlidingWindows):
        raise ValueError(f"slide_stride {stride_px}: views of {recipe.name} are no sliding windows (slide)")
    return replace(recipe, stride_px=stride_px)


def _starts(side_px: int, crop_px: int, step_px: int) -> list[int]:
    """Where the crops of an axis begin.

    >>> _starts(683, 512, 341), _starts(2048, 512, 341), _starts(300, 512, 341)
    ([0, 171], [0, 341, 682, 1023, 1364, 1536], [0])
    """
    last = max(0, side_px - crop_px)
    return [min(start, last) for start in range(0, last + step_px, step_px)]


def random_crops(name: str, crop_size: CropSize | None, short_side: int | None) -> ViewRecipe:
    """mmseg's training views."""
    return RandomCrops(name=name, crop_px=CROP_PX if crop_size is None else crop_size, short_px=short_side)


def mask2former_crops(name: str, crop_size: CropSize | None, short_side: int | None) -> ViewRecipe:
    """Mask2Former's training views."""
    return Mask2FormerCrops(
        name=name, crop_px=CROP_PX if crop_size is None else crop_size, short_px=short_side
    )


def single(crop_size: CropSize | None, short_side: int | None) -> ViewRecipe:
    """The whole image at one size."""
    return _whole("single", (1.0,), (False,), crop_size, short_side)


def ms_flip(crop_size: CropSize | None, short_side: int | None) -> ViewRecipe:
    """The whole image at six sizes, each as it is and flipped."""
    return _whole("ms-flip", MS_RATIOS, (False, True), crop_size, short_side)


def slide(crop_size: CropSize | None, short_side: int | None) -> ViewRecipe:
    """Windows of 512 px every 341 px over the whole image, or of another crop in its proportion; of a given
    short side as large as fits it in steps of 32 px."""
    if crop_size is None:
        fitting = CROP_PX if short_side is None else short_side // MULTIPLE_PX * MULTIPLE_PX
        crop_size = max(MULTIPLE_PX, fitting)
    return SlidingWindows(name="slide", crop_px=crop_size, short_px=short_side)


def _whole(
    name: str,
    ratios: tuple[float, ...],
    flips: tuple[bool, ...],
    crop_size: CropSize | None,
    short_side: int | None,
) -> ViewRecipe:
    refuse_crop(name, crop_size)
    short_px = SHORT_PX if short_side is None else short_side
    return WholeImages(name=name, ratios=ratios, flips=flips, short_px=short_px)
