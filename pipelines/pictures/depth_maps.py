"""Pictures of depth maps: a perceptual colour map over a range of metres, with a scale bar below."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Map = npt.NDArray[np.floating]
DEPTH_COLOURS, ERROR_COLOURS = "magma_r", "cividis"
"""Of matplotlib, even in lightness: near is light, and so is a large error."""
UNKNOWN = (128, 128, 128)
"""Of pixels without depth."""
_BAR_PX, _TICKS = 10, 3


def depth_range(*maps: Map) -> tuple[float, float]:
    """The least and the largest depth in metres of what is known of maps (above 0); 0 to 1 where nothing is.

    >>> depth_range(np.array([[0.0, 2.0, np.nan]]), np.array([[5.0]]))
    (2.0, 5.0)
    """
    known = [values[np.isfinite(values) & (values > 0)] for values in maps]
    kept = np.concatenate([each.reshape(-1) for each in known])
    if not kept.size:
        return 0.0, 1.0
    low, high = float(kept.min()), float(kept.max())
    return low, high if high > low else low + 1.0


def coloured(
    values: Map,
    low: float,
    high: float,
    colours: str = DEPTH_COLOURS,
    *,
    known: npt.NDArray[np.bool_] | None = None,
) -> Pixels:
    """uint8 RGB (H, W, 3) of a map; grey where nothing is known.

    Args:
        known: bool (H, W); None: what is finite and above 0.
    """
    # Late: loading takes a second, and pictures are drawn at the end.
    from matplotlib import colormaps

    is_known = np.isfinite(values) & (values > 0) if known is None else known & np.isfinite(values)
    share = (np.where(is_known, values, low) - low) / max(high - low, 1e-12)
    rgb: Pixels = (colormaps[colours](np.clip(share, 0, 1))[..., :3] * 255 + 0.5).astype(np.uint8)
    rgb[~is_known] = UNKNOWN
    return rgb


def with_scale_bar(
    rgb: Pixels, low: float, high: float, colours: str = DEPTH_COLOURS, unit: str = "m"
) -> Pixels:
    """The picture with a bar of its colours and their values below."""
    width = rgb.shape[1]
    size = max(9, min(16, width // 22))
    font = ImageFont.load_default(size)
    strip = Image.new("RGB", (width, _BAR_PX + size + 6), "white")
    values = np.linspace(low, high, width)[None].repeat(_BAR_PX, 0)
    strip.paste(
        Image.fromarray(coloured(values, low, high, colours, known=np.ones_like(values, bool))), (0, 0)
    )
    draw = ImageDraw.Draw(strip)
    places: tuple[tuple[float, str], ...] = ((0.0, "la"), (0.5, "ma"), (1.0, "ra"))
    for share, anchor in places if width >= 96 else places[::2]:
        text = f"{low + share * (high - low):.3g} {unit}"
        draw.text((share * (width - 1), _BAR_PX + 2), text, fill="black", font=font, anchor=anchor)
    return np.concatenate([rgb, np.asarray(strip)], axis=0)


def record_rows(rgb: Pixels, truth: Map, predicted: Map) -> dict[str, Pixels]:
    """Image, truth, prediction and error of one record; truth and prediction share a range."""
    low, high = depth_range(truth)
    error = np.abs(predicted - truth)
    measured = truth > 0
    largest = float(error[measured].max()) if measured.any() else 1.0

    def shown(values: Map) -> Pixels:
        return with_scale_bar(coloured(values, low, high), low, high)

    rows = {
        "truth": shown(truth),
        "prediction": shown(predicted),
        "error": with_scale_bar(
            coloured(error, 0, largest, ERROR_COLOURS, known=measured), 0, largest, ERROR_COLOURS
        ),
    }
    bar = np.full((rows["truth"].shape[0] - rgb.shape[0], *rgb.shape[1:]), 255, np.uint8)
    return {"image": np.concatenate([rgb, bar], axis=0), **rows}


def overlay(rgb: Pixels, depth: Map) -> Image.Image:
    """A photograph and its depth with a scale bar, beside each other, or below for a wide one."""
    low, high = depth_range(depth)
    drawn = with_scale_bar(coloured(depth, low, high), low, high)
    if rgb.shape[1] > 2 * rgb.shape[0]:
        return Image.fromarray(np.concatenate([rgb, drawn], axis=0))
    bar = np.full((drawn.shape[0] - rgb.shape[0], *rgb.shape[1:]), 255, np.uint8)
    return Image.fromarray(np.concatenate([np.concatenate([rgb, bar], axis=0), drawn], axis=1))
