"""Changes of a crop's pixels that leave its geometry alone: colours, and holes in a grid.

Colours are those of torchvision's ColorJitter in its fixed order (brightness, contrast, saturation, hue), by
Pillow; holes are albumentations' GridDropout with its defaults (ratio 0.5, units of a tenth of the side).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from extract.views.seeded_draws import Draws

Pixels = npt.NDArray[np.uint8]
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.4, 0.2
"""Half the ranges that "Revealing the Dark Secrets of Masked Image Modeling" (appendix F) prints for pose:
factors around 1, of the hue a share of the circle around 0."""
HOLES = 0.2
"""Probability."""
_UNITS = 10
"""Of the grid, along each side."""


@dataclass(frozen=True, slots=True)
class CropChanges:
    """The defaults change nothing."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    """Factors."""
    hue: int = 0
    """Added to Pillow's hue of 0..255, which goes around."""
    holes: bool = False
    """Whether each unit of a grid has a black hole of half its sides."""

    def to_params(self) -> tuple[float, ...]:
        return astuple(self)

    @classmethod
    def from_params(cls, params: Sequence[float]) -> CropChanges:
        brightness, contrast, saturation, hue, holes = params
        return cls(brightness, contrast, saturation, int(hue), bool(holes))

    def apply(self, rgb: Pixels) -> Pixels:
        """uint8 (H, W, 3), changed; itself where there is nothing to do."""
        if self == CropChanges():
            return rgb
        picture = Image.fromarray(np.ascontiguousarray(rgb))
        for kind, factor in (
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Color, self.saturation),
        ):
            picture = picture if factor == 1.0 else kind(picture).enhance(factor)
        if self.hue:
            hue, saturation, value = picture.convert("HSV").split()
            turned = Image.fromarray(np.asarray(hue) + np.uint8(self.hue % 256))
            picture = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
        out = np.array(picture)
        return with_holes(out) if self.holes else out


def with_holes(rgb: Pixels) -> Pixels:
    """Black rectangles of half a unit's sides at the upper left of each unit of a grid.

    >>> with_holes(np.full((20, 40, 3), 9, np.uint8))[:3, :5, 0].tolist()
    [[0, 0, 9, 9, 0], [9, 9, 9, 9, 9], [0, 0, 9, 9, 0]]
    """
    height, width = rgb.shape[:2]
    unit_y, unit_x = (max(2, side // _UNITS) for side in (height, width))
    rows = np.arange(height) % unit_y < max(1, unit_y // 2)
    columns = np.arange(width) % unit_x < max(1, unit_x // 2)
    out = rgb.copy()
    out[rows[:, None] & columns] = 0
    return out


def draw_changes(draws: Draws) -> CropChanges:
    """Colours within the ranges, and holes with their probability."""

    def factor(spread: float) -> float:
        return draws.uniform(1 - spread, 1 + spread)

    brightness, contrast, saturation = factor(BRIGHTNESS), factor(CONTRAST), factor(SATURATION)
    hue = int(draws.uniform(-HUE, HUE) * 256)
    return CropChanges(brightness, contrast, saturation, hue, draws.happens(HOLES))


def changes_rule() -> dict[str, object]:
    """What `draw_changes` and `apply` follow, for identities."""
    return {
        "rule": "ColorJitter by Pillow, GridDropout",
        "brightness": BRIGHTNESS,
        "contrast": CONTRAST,
        "saturation": SATURATION,
        "hue": HUE,
        "holes": HOLES,
        "units": _UNITS,
    }
