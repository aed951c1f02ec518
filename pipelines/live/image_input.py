"""Images as a caller has them, as the uint8 RGB that views are made of; what is ambiguous is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.uint8]
_FIX = "expected uint8 RGB (H, W, 3)"


class ImageError(ValueError):
    """An image that cannot be taken for RGB without guessing."""


def rgb_images(images: Iterable[Any]) -> Iterator[Rgb]:
    """Each image as uint8 (H, W, 3).

    Args:
        images: a sequence of images, or a batch of them with one more axis; each an array, a CPU tensor or a
            PIL image. Values: uint8, or floating point in 0..1 (times 255, rounded). Shapes: RGB (H, W, 3) or
            (3, H, W), grey (H, W), (H, W, 1) or (1, H, W), and RGBA whose alpha is opaque throughout. An
            image whose first and last axis could both be the channels has them last.

    Raises ImageError, naming the image, for anything else.
    """
    if isinstance(images, str | bytes) or not isinstance(images, Iterable):
        raise ImageError(
            f"images are given as {type(images).__name__}, expected a sequence of arrays: pass [image]; "
            "files are read by `python -m pipelines predict`"
        )
    axes = getattr(images, "ndim", None)
    if axes is not None and axes != 4:
        raise ImageError(
            f"images are one array of shape {tuple(getattr(images, 'shape', ()))}, expected a sequence of "
            "images or a batch (N, H, W, 3): pass [image]"
        )
    return (rgb_image(image, f"image {number}") for number, image in enumerate(images))


def rgb_image(image: Any, name: str) -> Rgb:
    """One image as uint8 (H, W, 3); see `rgb_images`."""
    pixels = _channels_last(_array(image, name), name)
    if 0 in pixels.shape:
        raise ImageError(f"{name} has the shape {pixels.shape}: it holds no pixel")
    pixels = _as_uint8(pixels, name)
    channels = pixels.shape[-1]
    if channels == 4:
        if (pixels[..., 3] != 255).any():
            raise ImageError(
                f"{name} has 4 channels, and the fourth is not opaque alpha, {_FIX}; blend it over a "
                "background, or drop the alpha: image[..., :3]"
            )
        pixels = pixels[..., :3]
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _array(image: Any, name: str) -> npt.NDArray[Any]:
    if isinstance(image, str | bytes):
        raise ImageError(f"{name} is {type(image).__name__}, {_FIX}; files are read by `predict`")
    mode = getattr(image, "mode", None)
    if isinstance(mode, str) and mode not in ("RGB", "RGBA", "L"):  # a PIL image: palettes are no grey
        raise ImageError(f"{name} is a PIL image of mode {mode}, {_FIX}; pass image.convert('RGB')")
    try:
        pixels = np.asarray(image)
    except Exception as error:  # whatever an object that is no array raises, such as a tensor on a GPU
        raise ImageError(f"{name} is no array that can be read ({error}), {_FIX}") from None
    if pixels.dtype == object or pixels.ndim not in (2, 3):
        raise ImageError(f"{name} is {type(image).__name__} of shape {pixels.shape}, {_FIX}")
    return pixels


def _channels_last(pixels: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[-1] in (1, 3, 4):
        return pixels
    if pixels.shape[0] in (1, 3, 4):
        return np.moveaxis(pixels, 0, -1)
    raise ImageError(f"{name} has the shape {pixels.shape}: no axis of 3 channels, {_FIX}")


def _as_uint8(pixels: npt.NDArray[Any], name: str) -> Rgb:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind != "f":
        raise ImageError(
            f"{name} is {pixels.dtype}, {_FIX}; scale it to 0..255 and pass image.astype('uint8')"
        )
    if not np.isfinite(pixels).all():
        raise ImageError(f"{name} is {pixels.dtype} with values that are not finite, {_FIX}")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise ImageError(
            f"{name} is {pixels.dtype} in {low:g}..{high:g}, {_FIX} or floating point in 0..1; do not "
            "normalise it, the model does"
        )
    return np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)
