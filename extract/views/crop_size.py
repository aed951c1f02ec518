"""Sizes of crops: the side of a square, or height and width, as in `--crop-size 512x1024`."""

from __future__ import annotations

import re
from typing import Any

from extract.views.view import MULTIPLE_PX, Hw

CropSize = int | str | Hw
"""A side in pixels, "HEIGHTxWIDTH", or (height, width)."""
PATCHES_PX = (14, 16)
"""Patches of plain ViTs, whose views are multiples of them; those of 8 or 32 px take sides of 32 too."""
_WRITTEN = re.compile(r"\s*(\d{1,6})\s*(?:[xX]\s*(\d{1,6}))?\s*")


def crop_hw(size: Any) -> Hw:
    """Height and width in pixels of a crop as callers, command lines and identities write it.

    Raises ValueError for anything else.

    >>> crop_hw(512), crop_hw("512x1024"), crop_hw([512, 1024]), crop_hw("512")
    ((512, 512), (512, 1024), (512, 1024), (512, 512))
    """
    if type(size) is int:
        return size, size
    if isinstance(size, str) and (written := _WRITTEN.fullmatch(size)):
        height = int(written[1])
        return height, int(written[2] or height)
    if isinstance(size, (tuple, list)) and len(size) == 2 and all(type(side) is int for side in size):
        return size[0], size[1]
    raise ValueError(
        f"crop_size {size!r}: expected pixels: the side of a square, such as 512, or HEIGHTxWIDTH, such as "
        "512x1024"
    )


def plain_size(size: CropSize) -> int | Hw:
    """A square's side, or height and width: what makers of view recipes are given.

    >>> plain_size("512x512"), plain_size("512x1024")
    (512, (512, 1024))
    """
    height, width = crop_hw(size)
    return height if height == width else (height, width)


def size_in_identity(size: CropSize) -> int | list[int]:
    """A crop as identities hold it: the side of a square, as ever, else [height, width]."""
    height, width = crop_hw(size)
    return height if height == width else [height, width]


def size_text(size: Any) -> str:
    """A crop as `--crop-size` takes it.

    >>> size_text(512), size_text([512, 1024])
    ('512', '512x1024')
    """
    height, width = crop_hw(size)
    return str(height) if height == width else f"{height}x{width}"


def check_crop(size: CropSize, most_px: int) -> None:
    """Raises ValueError for sides that no crop can have; `fitted_to` judges those of one backbone."""
    for side_px in crop_hw(size):
        fits = any(side_px % multiple == 0 for multiple in (MULTIPLE_PX, *PATCHES_PX))
        if not MULTIPLE_PX <= side_px <= most_px or not fits:
            patches = " or ".join(map(str, PATCHES_PX))
            raise ValueError(
                f"crop_size {size_text(size)}: expected a multiple of {MULTIPLE_PX} px up to {most_px} (of "
                f"plain ViTs of their patches, {patches} px)"
            )


def within_crop(resized: Hw, crop: Hw) -> Hw:
    """The size of what a crop shows of an image."""
    return min(resized[0], crop[0]), min(resized[1], crop[1])


def size_identity(crop_px: CropSize) -> dict[str, Any]:
    """What identities hold of a view's size: `scale_px`, long and short side, and where it is no square
    `crop_px`, height and width."""
    sides = crop_hw(crop_px)
    square = sides[0] == sides[1]
    return {
        "scale_px": sorted(sides, reverse=True),
        **({} if square else {"crop_px": size_in_identity(crop_px)}),
    }


def covering(scaled: Hw, view: Hw) -> Hw:
    """The size of a frame or photograph, enlarged where the view would not fit into it.

    >>> covering((224, 398), (224, 224)), covering((128, 228), (128, 256))
    ((224, 398), (144, 256))
    """
    factor = max(1.0, *(v / s for v, s in zip(view, scaled, strict=True)))
    height, width = (max(v, round(s * factor)) for s, v in zip(scaled, view, strict=True))
    return height, width
