"""Pixels as differences, which zstd compresses to two thirds of the size of compressed pixels.

In each image red and blue are taken relative to green, then each cell relative to its left neighbour, all
modulo 256: lossless, and undone by one running sum. A store that holds them requires the feature
`pixel-differences`; without it `pixels` holds the pixels themselves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PIXEL_DIFFERENCES = "pixel-differences"
Pixels = npt.NDArray[np.uint8]


def differences(pixels: Pixels) -> Pixels:
    """uint8 (..., y, x, 3) of RGB of the same shape.

    >>> import numpy as np
    >>> differences(np.array([[[10, 20, 30], [12, 21, 30]]], np.uint8)).tolist()
    [[[246, 20, 10], [1, 1, 255]]]
    """
    relative = pixels.copy()
    relative[..., 0] -= pixels[..., 1]
    relative[..., 2] -= pixels[..., 1]
    found = relative.copy()
    found[..., 1:, :] -= relative[..., :-1, :]
    return found


def undo_differences(stored: Pixels) -> Pixels:
    """The inverse of `differences`: uint8 RGB."""
    pixels = np.cumsum(stored, axis=-2, dtype=np.uint8)
    pixels[..., 0] += pixels[..., 1]
    pixels[..., 2] += pixels[..., 1]
    return pixels
