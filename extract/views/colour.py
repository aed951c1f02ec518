"""Photometric distortion of uint8 RGB, as mmseg does it; integers and tables, so equal on every machine.

Source: mmsegmentation@056edc8 mmseg/datasets/transforms/transforms.py, PhotoMetricDistortion: brightness,
contrast (first, or last after the hue), saturation, hue, each with probability 1/2; every step ends in uint8
by truncation. HSV is OpenCV's of 8 bits: hue 0..179, saturation and value 0..255. Deviations: a hue shift of
0 is not applied (there it costs a rounding through HSV), and the way back from HSV rounds exactly (OpenCV's
float32 may differ by 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extract.views.seeded_draws import Draws, Floats, ManyDraws

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
_ROUNDING = 5e-5

_BAND_ROWS = 128
"""Rows that are distorted at a time: what is made of them stays in a core's cache, which halves the time."""

Image = npt.NDArray[np.uint8]
Planes = Sequence[Image]
"""Red, green and blue, each (H, W)."""
Table = npt.NDArray[np.uint8]
"""A value for each of 0..255."""
_VALUES_8 = np.arange(256, dtype=np.uint8)


def _saturations() -> Table:
    """The saturation of [value, spread], flat; 0 where the spread exceeds the value, which does not occur."""
    value, spread = np.indices((256, 256), dtype=np.int32)
    scaled = (spread * _SATURATION_TABLE[value] + _HALF) >> _SHIFT
    return np.where(spread > value, 0, scaled).astype(np.uint8).reshape(-1)


def _hues() -> tuple[Table, npt.NDArray[np.int64]]:
    """The hue of [spread, sector + 255], flat, and where the row of each spread has sector 0."""
    sectors = np.arange(-255, 5 * 255 + 1, dtype=np.int32)
    hue = (sectors[None] * _HUE_TABLE[:, None] + _HALF) >> _SHIFT
    hue += 180 * (hue < 0)
    return hue.astype(np.uint8).reshape(-1), 255 + len(sectors) * np.arange(256)


_SATURATION_OF = _saturations()
_HUE_OF, _HUE_ROW = _hues()


def _fall(channel_offset: int) -> Table:
    """How far, in 30ths, a channel falls below the value at each hue: 30 max(0, min(k, 4 - k, 1)) with k the
    hue in sectors of 60 degrees, counted from the channel's own offset."""
    k = (np.arange(256) + 30 * channel_offset) % 180
    return np.clip(np.minimum(k, 120 - k), 0, 30).astype(np.uint8)


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
        before = _scaled(_VALUES_8, 1.0, self.brightness)
        after = _VALUES_8
        if self.contrast_first:
            before = _scaled(before, self.contrast, 0.0)
        else:
            after = _scaled(after, self.contrast, 0.0)
        if self.saturation == 1.0 and not self.hue:
            return _mapped(rgb, after[before])
        planes = [_mapped(np.ascontiguousarray(rgb[..., channel]), before) for channel in range(3)]
        out = np.empty(rgb.shape, np.uint8)
        for start in range(0, len(rgb), _BAND_ROWS):
            band = slice(start, start + _BAND_ROWS)
            for channel, plane in enumerate(self._of_band([plane[band] for plane in planes])):
                out[band, :, channel] = plane
        return _mapped(out, after)

    def _of_band(self, rgb: Planes) -> Planes:
        if self.saturation != 1.0:
            hue, saturation, value = _hsv(rgb)
            rgb = _rgb(hue, _mapped(saturation, _scaled(_VALUES_8, self.saturation, 0.0)), value)
        if self.hue:
            hue, saturation, value = _hsv(rgb)
            rgb = _rgb(_mapped(hue, _shifted_hues(self.hue)), saturation, value)
        return rgb


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


def colour_params(draws: ManyDraws, hues: int = 2 * HUE_DELTA) -> Floats:
    """As `draw_colour`: float64 (records, 5)."""
    brightness = _maybe(draws, (-BRIGHTNESS_DELTA, BRIGHTNESS_DELTA), 0.0)
    contrast_first = draws.integer(2) == 1
    contrast, saturation = _maybe(draws, CONTRAST_RANGE, 1.0), _maybe(draws, SATURATION_RANGE, 1.0)
    changes = draws.happens(PROBABILITY)
    hue = np.where(changes, draws.integer(hues, changes) - HUE_DELTA, 0)
    return np.stack([brightness, contrast, contrast_first, saturation, hue], axis=1, dtype=np.float64)


def _maybe(draws: ManyDraws, bounds: tuple[float, float], usual: float) -> Floats:
    changes = draws.happens(PROBABILITY)
    return np.where(changes, draws.uniform(*bounds, changes), usual)


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


def _scaled(values: Table, factor: float, offset: float) -> Table:
    """values * factor + offset in float32, clipped and truncated, as mmseg's `convert`."""
    if factor == 1.0 and offset == 0.0:
        return values
    scaled = values.astype(np.float32) * np.float32(factor) + np.float32(offset)
    clipped: Table = np.clip(scaled, 0, 255).astype(np.uint8)
    return clipped


def _shifted_hues(shift: int) -> Table:
    return ((_VALUES_8.astype(np.int16) + shift) % 180).astype(np.uint8)


def _mapped(values: Image, table: Table) -> Image:
    """table[values]; `translate` takes a third of the time of numpy's `take`."""
    if table is _VALUES_8:
        return values
    return np.frombuffer(values.tobytes().translate(table.tobytes()), np.uint8).reshape(values.shape)


def rgb_to_hsv(rgb: Image) -> tuple[Image, Image, Image]:
    """Hue 0..179, saturation and value 0..255 of uint8 (H, W, 3), each (H, W); OpenCV's integer rule.

    >>> [int(x[0, 0]) for x in rgb_to_hsv(np.array([[[10, 200, 30]]], np.uint8))]
    [63, 242, 200]
    """
    return _hsv([np.ascontiguousarray(rgb[..., channel]) for channel in range(3)])


def hsv_to_rgb(hue: Image, saturation: Image, value: Image) -> Image:
    """The inverse of `rgb_to_hsv`, rounded to nearest: uint8 (H, W, 3).

    >>> [hsv_to_rgb(*(np.array([[x]], np.uint8) for x in (63, 242, 200)))[0, 0].tolist()]
    [[10, 200, 29]]
    """
    return np.stack(_rgb(hue, saturation, value), axis=-1)


def _hsv(rgb: Planes) -> tuple[Image, Image, Image]:
    r, g, b = rgb
    value = np.maximum(np.maximum(r, g), b)
    spread = value - np.minimum(np.minimum(r, g), b)
    saturation = _SATURATION_OF.take(np.left_shift(value, 8, dtype=np.uint16) | spread)
    # (g - b), (b - r + 2 spread) or (r - g + 4 spread): the first whose channel is the value.
    twice = np.multiply(spread, 2, dtype=np.int16)
    sector = np.subtract(r, g, dtype=np.int16)
    sector += twice
    sector += twice
    of_green = np.subtract(b, r, dtype=np.int16)
    of_green += twice
    np.copyto(sector, of_green, where=value == g)
    np.subtract(g, b, dtype=np.int16, out=sector, where=value == r)
    place = _HUE_ROW.take(spread)
    place += sector
    return _HUE_OF.take(place), saturation, value


def _rgb(hue: Image, saturation: Image, value: Image) -> Planes:
    """floor((value * DEPTH + DEPTH / 2 - value * saturation * fall) / DEPTH) of each channel.

    In float32, where the tests compare all 2 million combinations with whole numbers: those that would fall
    below a whole number by rounding are off by less than _ROUNDING, all others are above it by more.
    """
    level = value.astype(np.float32)
    depth = level * saturation
    depth *= np.float32(1 / _DEPTH)
    level += np.float32(0.5 + _ROUNDING)
    planes = []
    for fall in _FALL_RGB:
        lowered = depth * _mapped(hue, fall)
        planes.append(np.subtract(level, lowered, out=lowered).astype(np.uint8))
    return planes
