"""Makers of the view recipes of segmentation, from a crop size and a short side; None for the papers' 512 px.

All raise ValueError for a size that a recipe cannot have.
"""

from __future__ import annotations

from extract.views.crop_size import CropSize
from extract.views.mask2former_recipes import Mask2FormerCrops
from extract.views.recipes import CROP_PX, SHORT_PX, RandomCrops, ViewRecipe, WholeImages, refuse_crop

MS_RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


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
