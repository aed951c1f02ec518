"""View recipes of depth: images at their own size, a fixed part of them, random crops, square test windows.

Source: SwinTransformer/MIM-Depth-Estimation@59ba08d dataset/base_dataset.py (random crop, flip, brightness
and contrast 0.2, hue, saturation) and test.py (square windows of the image's height along its width, each
mirrored too); KITTI's fixed part is its "kb crop", 352x1216 at the bottom centre. Nothing is resized unless a
short side is asked for; a depth map follows by picking pixels. Deviations: colour is drawn by the rule of
extract/views/colour.py (wider ranges, no gamma), and the last window is flush with the image's end, where
test.py leaves up to 9 columns of KITTI's uncovered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from extract.sources.record import Record
from extract.views.colour import colour_rule, draw_colour
from extract.views.crop_size import CropSize, check_crop, crop_hw, size_in_identity, within_crop
from extract.views.recipes import (
    LONG_TO_SHORT,
    MAX_SIDE_PX,
    SeededViews,
    ViewRecipe,
    check_short_side,
    draw_corner,
    refuse_crop,
)
from extract.views.seeded_draws import ViewDraws
from extract.views.view import Hw, View, keep_ratio, padded_up, replay_rule

DEFAULT_LEVELS = ("p5",)
"""The level that the paper's head reads."""
NYU_CROP_PX = 480
KITTI_PART_HW = (352, 1216)
"""KITTI's "kb crop", at the bottom centre."""
NYU_WINDOWS, KITTI_WINDOWS = 2, 16
_OVERLAP = 3
"""Windows begin a third of their side apart, as NYU's, where a data set has no number of its own."""
_MOST_RATIO = 16
"""Of the sides of an image: of a longer one, windows cover the beginning alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """Size and place of what views are taken of: the whole image, or its bottom centre."""

    name: str
    part_hw: Hw | None = None
    """Height and width of the bottom centre of the image that all views lie in; None: the whole image."""
    short_px: int | None = None
    """Short side of the image; None: images keep their size."""

    def __post_init__(self) -> None:
        if self.short_px is not None:
            check_short_side(self.short_px, MAX_SIDE_PX)

    def resized(self, record: Record) -> Hw:
        if self.short_px is None:
            return record.original_hw
        return keep_ratio(record.original_hw, self.short_px * LONG_TO_SHORT, self.short_px)

    def part(self, resized: Hw) -> tuple[Hw, Hw]:
        """Upper left corner and size of the part of a resized image.

        >>> _Part(name="", part_hw=(352, 1216)).part((375, 1242)), _Part(name="").part((480, 640))
        (((23, 13), (352, 1216)), ((0, 0), (480, 640)))
        """
        if self.part_hw is None:
            return (0, 0), resized
        size = within_crop(resized, self.part_hw)
        return (resized[0] - size[0], (resized[1] - size[1]) // 2), size

    def identity(self) -> dict[str, Any]:
        scale = {} if self.short_px is None else {"scale_px": [self.short_px * LONG_TO_SHORT, self.short_px]}
        part = {} if self.part_hw is None else {"part_px": list(self.part_hw)}
        return {"recipe": self.name, **scale, **part, "replay": replay_rule()}


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthCrops(_Part, SeededViews):
    """Training views: random crops, mirrored by chance, with distorted colours; padded to the crop's size."""

    crop_px: CropSize = NYU_CROP_PX
    """Side of a square crop, or height and width; multiples of 32."""
    flip: float = 0.5
    """Probability."""

    def __post_init__(self) -> None:
        _Part.__post_init__(self)  # not super(): slots make a new class of this one
        check_crop(self.crop_px, MAX_SIDE_PX)

    def identity(self) -> dict[str, Any]:
        own = {"crop_px": size_in_identity(self.crop_px), "flip": self.flip, "colour": colour_rule()}
        return {**_Part.identity(self), **own}

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> View:
        draws = ViewDraws(dataset, record.key, index, seed)
        resized, crop = self.resized(record), crop_hw(self.crop_px)
        (top, left), size = self.part(resized)
        valid = within_crop(size, crop)
        y, x = draw_corner(draws("crop"), size, valid)
        return View(
            resized_hw=resized,
            crop_yx=(top + y, left + x),
            valid_hw=valid,
            padded_hw=crop,
            flip=draws("flip").happens(self.flip),
            colour=draw_colour(draws("colour")),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WholePart(_Part):
    """The test view of the whole image, or of its fixed part."""

    frames = None
    looks_at_truth = False
    fixed_count = 1

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> View:
        resized = self.resized(record)
        corner, size = self.part(resized)
        return View(resized_hw=resized, crop_yx=corner, valid_hw=size, padded_hw=padded_up(size))


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideFlip(_Part):
    """Test views of square windows along the longer side, each as it is and mirrored, for every seed alike.

    The predictions of an image are mirrored back and averaged where windows overlap.
    """

    frames = None
    looks_at_truth = False
    windows: int | None = None
    """Of an image that is no square; None: as many as begin a third of their side apart."""

    @property
    def fixed_count(self) -> int:
        """Of the longest image there may be; `views_of` has fewer for others."""
        return 2 * max(self.windows or 0, _OVERLAP * (_MOST_RATIO - 1) + 1)

    def identity(self) -> dict[str, Any]:
        return {**_Part.identity(self), "windows": self.windows, "flips": [False, True]}

    def views_of(self, record: Record) -> int:
        """Views that cover a record's image."""
        return 2 * len(self._starts(self.part(self.resized(record))[1]))

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> View:
        resized = self.resized(record)
        (top, left), size = self.part(resized)
        start, flip = self._starts(size)[index // 2], bool(index % 2)
        side = min(size)
        y, x = (start, 0) if size[0] > size[1] else (0, start)
        return View(
            resized_hw=resized,
            crop_yx=(top + y, left + x),
            valid_hw=(side, side),
            padded_hw=padded_up((side, side)),
            flip=flip,
        )

    def _starts(self, size: Hw) -> list[int]:
        """Where the windows of a part begin along its longer side.

        >>> SlideFlip(name="", windows=2)._starts((480, 640)), SlideFlip(name="")._starts((64, 80))
        ([0, 160], [0, 16])
        >>> SlideFlip(name="", windows=16)._starts((352, 1216))[-2:]
        [798, 864]
        """
        side, longer = min(size), max(size)
        over = longer - side
        if not over:
            return [0]
        fewest = -(-over // side) + 1
        count = -(-_OVERLAP * over // side) + 1 if self.windows is None else max(self.windows, fewest)
        step = max(1, over // (count - 1))
        return sorted({*(min(number * step, over) for number in range(count - 1)), over})


def crops(
    name: str, part_hw: Hw | None, papers_px: CropSize, crop_size: CropSize | None, short_side: int | None
) -> ViewRecipe:
    """Training views of a data set.

    Args:
        papers_px: the crop where none is asked for.
    """
    crop = papers_px if crop_size is None else crop_size
    return DepthCrops(name=name, part_hw=part_hw, crop_px=crop, short_px=short_side)


def single(part_hw: Hw | None, crop_size: CropSize | None, short_side: int | None) -> ViewRecipe:
    """The whole image, or its fixed part."""
    refuse_crop("single", crop_size)
    return WholePart(name="single", part_hw=part_hw, short_px=short_side)


def slide_flip(
    part_hw: Hw | None, windows: int | None, crop_size: CropSize | None, short_side: int | None
) -> ViewRecipe:
    """Square windows, each mirrored too."""
    refuse_crop("slide-flip", crop_size)
    return SlideFlip(name="slide-flip", part_hw=part_hw, windows=windows, short_px=short_side)
