"""Photometric distortion of uint8 RGB, as mmseg does it; integers and tables, so equal on every machine.

Source: mmsegmentation@056edc8 mmseg/datasets/transforms/transforms.py, PhotoMetricDistortion: brightness,
contrast (first, or last after the hue), saturation, hue, each with probability 1/2; every step ends in uint8
by truncation. HSV is OpenCV's of 8 bits: hue 0..179, saturation and value 0..255. Deviations: a hue shift of
0 is not applied (there it costs a rounding through HSV), and the way back from HSV rounds exactly (OpenCV's
float32 may differ by 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extract.views.seeded_draws import Draws

BRIGHTNESS_DELTA = 32
CONTRAST_RANGE = (0.5, 1.5)
SATURATION_RANGE = (0.5, 1.5)
HUE_DELTA = 18
PROBABILITY = 0.5

_SHIFT, _HALF = 12, 1 << 11
_VALUES = np.arange(1, 256, dtype=np.float64)
_SATURATION_TABLE = np.concatenate([[0], np.rint((255 << _SHIFT) / _VALUES)]).astype(np.int32)
_HUE_TABLE = np.concatenate([[0], np.rint((180 << _SHIFT) / (6 * _VALUES))]).astype(np.int32)
_DEPTH = 255 * 30  # of a channel below the value: saturation in 255ths times hue in 30ths of a sector

_BAND_ROWS = 128
"""Rows that are distorted at a time: what is made of them stays in a core's cache, which halves the time."""

Image = npt.NDArray[np.uint8]


def _fall(channel_offset: int) -> npt.NDArray[np.int32]:
    """How far, in 30ths, a channel falls below the value at each hue: 30 max(0, min(k, 4 - k, 1)) with k the
    hue in sectors of 60 degrees, counted from the channel's own offset."""
    k = (np.arange(180) + 30 * channel_offset) % 180
    return np.clip(np.minimum(k, 120 - k), 0, 30).astype(np.int32)


_FALL_RGB = tuple(_fall(offset) for offset in (5, 3, 1))


@dataclass(frozen=True, slots=True)
class Colour:
    """One distortion; the defaults change nothing."""

    brightness: float = 0.0
    """Added to every channel; 0: none."""
    contrast: float = 1.0
    """Factor of every channel; 1: none."""
    contrast_first: bool = False
    """Whether contrast comes before saturation and hue."""
    saturation: float = 1.0
    """Factor of HSV's saturation; 1: none."""
    hue: int = 0
    """Added to HSV's hue, in steps of 2 degrees; 0: none."""

    def apply(self, rgb: Image) -> Image:
        """uint8 (H, W, 3) distorted; itself where there is nothing to do."""
        if self == Colour():
            return rgb
        out = np.empty_like(rgb)
        for start in range(0, len(rgb), _BAND_ROWS):
            band = slice(start, start + _BAND_ROWS)
            out[band] = self._of_band(rgb[band])
        return out

    def _of_band(self, rgb: Image) -> Image:
        out = _scaled(rgb, 1.0, self.brightness)
        if self.contrast_first:
            out = _scaled(out, self.contrast, 0.0)
        if self.saturation != 1.0:
            hue, saturation, value = rgb_to_hsv(out)
            out = hsv_to_rgb(hue, _scaled(saturation, self.saturation, 0.0), value)
        if self.hue:
            hue, saturation, value = rgb_to_hsv(out)
            out = hsv_to_rgb(((hue.astype(np.int16) + self.hue) % 180).astype(np.uint8), saturation, value)
        return out if self.contrast_first else _scaled(out, self.contrast, 0.0)


def draw_colour(draws: Draws, hues: int = 2 * HUE_DELTA) -> Colour:
    """A distortion with mmseg's ranges and probabilities.

    Args:
        hues: how many shifts of the hue there are, from -HUE_DELTA on; numpy's randint leaves its end out.
    """
    brightness = draws.uniform(-BRIGHTNESS_DELTA, BRIGHTNESS_DELTA) if draws.happens(PROBABILITY) else 0.0
    contrast_first = draws.integer(2) == 1
    contrast = draws.uniform(*CONTRAST_RANGE) if draws.happens(PROBABILITY) else 1.0
    saturation = draws.uniform(*SATURATION_RANGE) if draws.happens(PROBABILITY) else 1.0
    hue = draws.integer(hues) - HUE_DELTA if draws.happens(PROBABILITY) else 0
    return Colour(brightness, contrast, contrast_first, saturation, hue)


def colour_rule() -> dict[str, object]:
    """What `draw_colour` and `apply` follow, for identities."""
    return {
        "rule": "mmseg PhotoMetricDistortion, 8-bit HSV",
        "brightness_delta": BRIGHTNESS_DELTA,
        "contrast": list(CONTRAST_RANGE),
        "saturation": list(SATURATION_RANGE),
        "hue_delta": HUE_DELTA,
        "probability": PROBABILITY,
    }


def _scaled(values: Image, factor: float, offset: float) -> Image:
    """values * factor + offset in float32, clipped and truncated, as mmseg's `convert`; by a table."""
    if factor == 1.0 and offset == 0.0:
        return values
    table = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset)
    return np.take(np.clip(table, 0, 255).astype(np.uint8), values)


def rgb_to_hsv(rgb: Image) -> tuple[Image, Image, Image]:
    """Hue 0..179, saturation and value 0..255 of uint8 (H, W, 3), each (H, W); OpenCV's integer rule.

    >>> [int(x[0, 0]) for x in rgb_to_hsv(np.array([[[10, 200, 30]]], np.uint8))]
    [63, 242, 200]
    """
    r, g, b = (rgb[..., channel].astype(np.int32) for channel in range(3))
    value = np.maximum(np.maximum(r, g), b)
    spread = value - np.minimum(np.minimum(r, g), b)
    saturation = (spread * _SATURATION_TABLE[value] + _HALF) >> _SHIFT
    hue = np.where(value == r, g - b, np.where(value == g, b - r + 2 * spread, r - g + 4 * spread))
    hue = (hue * _HUE_TABLE[spread] + _HALF) >> _SHIFT
    hue += 180 * (hue < 0)
    return hue.astype(np.uint8), saturation.astype(np.uint8), value.astype(np.uint8)


def hsv_to_rgb(hue: Image, saturation: Image, value: Image) -> Image:
    """The inverse of `rgb_to_hsv`, rounded to nearest: uint8 (H, W, 3).

    >>> [hsv_to_rgb(*(np.array([[x]], np.uint8) for x in (63, 242, 200)))[0, 0].tolist()]
    [[10, 200, 29]]
    """
    depth = value.astype(np.int32) * saturation
    base = value.astype(np.int32) * _DEPTH + _DEPTH // 2
    return np.stack([(base - depth * fall[hue]) // _DEPTH for fall in _FALL_RGB], axis=-1).astype(np.uint8)
