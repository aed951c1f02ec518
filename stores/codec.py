"""What a codec of features is, and how far its numbers are from the backbone's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stores.errors import CodecError

Encoded = Mapping[str, npt.NDArray[Any]]


class Codec(Protocol):
    """Numbers in, arrays to store out. Implemented by each module of stores/codecs as its `CODEC`."""

    @property
    def q_dtype(self) -> np.dtype[Any]:
        """The element type of the array `q`, which has the features' own shape."""

    @property
    def fill(self) -> int | float:
        """The value of an absent chunk of `q`; `encode` never produces it."""

    @property
    def has_scale(self) -> bool:
        """Whether a float32 array `scale` (row, [time,] channel) stands beside `q`."""

    def encode(self, x: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """The arrays to store of features (..., y, x, channel). Raises CodecError for non-finite ones."""

    def decode(self, encoded: Encoded) -> npt.NDArray[np.float32]:
        """Float32 features (..., y, x, channel), equal on every device."""

    def check(self, encoded: Encoded) -> None:
        """Raises CodecError for arrays that `encode` cannot have made, such as the fill value."""

    def error_figures(self, x: npt.NDArray[Any]) -> dict[str, float]:
        """See `error_figures` of this module."""


def finite_float32(x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Features (..., y, x, channel) as float32. Raises CodecError for other types and non-finite values."""
    if x.dtype not in (np.float32, np.float16) or x.ndim < 3:
        raise CodecError(f"features are {x.dtype} with {x.ndim} axes, expected float32 (..., y, x, channel)")
    exact = np.asarray(x, dtype=np.float32)
    if not np.isfinite(exact).all():
        raise CodecError(f"{int((~np.isfinite(exact)).sum())} of {exact.size} feature values are not finite")
    return exact


def error_figures(x: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> dict[str, float]:
    """The codec's error relative to each channel's standard deviation.

    Per channel: root mean square of `decoded - x` over the standard deviation of x, both over the values
    whose magnitude is not above the channel's 99.9th percentile, because a few outlier tokens at 50 sigma
    would inflate the deviation and hide the error they cause in all others. A constant channel that decodes
    exactly counts as 0.

    Args:
        x: float (..., channel).
        decoded: the same after encode and decode.

    Returns:
        `median` and `worst` over channels, and the index of the worst, `worst_channel`.
    """
    values = x.reshape(-1, x.shape[-1]).astype(np.float64)
    error = decoded.reshape(values.shape).astype(np.float64) - values
    limit = np.quantile(np.abs(values), 0.999, axis=0)
    kept = np.abs(values) <= limit
    deviation = np.std(values, axis=0, where=kept)
    rms = np.sqrt(np.mean(error**2, axis=0, where=kept))
    relative = np.divide(rms, deviation, out=np.zeros_like(rms), where=deviation > 0)
    worst = int(np.argmax(relative))
    return {
        "median": float(np.median(relative)),
        "worst": float(relative[worst]),
        "worst_channel": float(worst),
    }
