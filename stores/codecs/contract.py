"""The contract of a codec of features, and its error figures.

A codec is one module of stores/codecs with `CODEC`. A family with a whole number in its names, such as q2 and
q5 of a module q, has `parse(number) -> Codec` instead, which raises CodecError for a number it refuses, and
`NUMBERS`, those that are listed and tested. A codec that is fitted to data first is a `FittedCodec`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from stores.errors import CodecError

Encoded = Mapping[str, npt.NDArray[Any]]
State = Mapping[str, npt.NDArray[Any]]
"""What a codec learned of one level, arrays by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One of the arrays that a codec stores of a level."""

    dtype: np.dtype[Any]
    width: int
    """Elements of its last axis, for so many channels of the level."""
    dim: str = "channel"
    """The name of its last axis."""
    per_cell: bool = True
    """(row, [time,] y, x, width), or (row, [time,] width)."""
    fill: int | float = float("nan")
    """The value of an absent chunk; `encode` never produces it."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Of the Zarr array."""
    zstd_level: int | None = None
    """Of chunks that are zstd frames; None for uncompressed ones."""
    channel_first: bool = False
    """Whether chunks hold (row, [time,] channel, y, x). In memory these arrays are views of such bytes, with
    the shape of all others."""


class Codec(Protocol):
    """Numbers in, arrays to store out; each row (and frame) by itself.

    A codec may have an attribute `formula`, the text by which a stranger decodes its arrays: it becomes the
    attribute `decode` of `q` in the store.
    """

    @property
    def required_features(self) -> tuple[str, ...]:
        """What a reader must know besides format v1 to read it; see `StorePlan.required_features`."""

    def parts(self, channels: int) -> Mapping[str, Part]:
        """The arrays it stores of a level with so many channels, by the names that `encode` gives them.

        The first is `q`, the codes.
        """

    def encode(self, x: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """The arrays to store of features (..., y, x, channel). Raises CodecError for non-finite ones."""

    def decode(self, encoded: Encoded) -> npt.NDArray[np.float32]:
        """Float32 features (..., y, x, channel), equal on every device; each cell by itself."""

    def check(self, encoded: Encoded) -> None:
        """Raises CodecError for arrays that `encode` cannot have made, such as the fill value."""

    def error_figures(self, x: npt.NDArray[Any]) -> dict[str, float]:
        """See `error_figures` of this module."""


@runtime_checkable
class FittedCodec(Codec, Protocol):
    """A codec with numbers that are fitted to sample rows of each level, and then are the same for all rows.

    `parts` and `required_features` need no state. Without one, the other methods raise CodecError.
    """

    def fit(self, x: npt.NDArray[Any]) -> State:
        """The state of one level from sample rows (row, [time,] y, x, channel), equal on every machine."""

    def with_state(self, state: State) -> Self:
        """The codec of that level. Raises CodecError for arrays that `fit` cannot have made."""


def state_sha256(state: State) -> str:
    """64 hex digits over the names, types, shapes and bytes of a codec's state: what binds a store to it.

    >>> state_sha256({"mean": np.zeros(2, np.float32)})[:16]
    '6d1fbdd9f7ebc879'
    """
    digest = hashlib.sha256()
    for name, array in sorted(state.items()):
        whole = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {whole.dtype.str} {whole.shape}\n".encode())
        digest.update(whole.tobytes())
    return digest.hexdigest()


def states_sha256(states: Mapping[str, State]) -> str:
    """The same over the states of several levels."""
    lines = (f"{level} {state_sha256(state)}\n" for level, state in sorted(states.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def finite_float32(x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Features (..., y, x, channel) as float32. Raises CodecError for other types and non-finite values."""
    if x.dtype not in (np.float32, np.float16) or x.ndim < 3:
        raise CodecError(f"features are {x.dtype} with {x.ndim} axes, expected float32 (..., y, x, channel)")
    exact = np.asarray(x, dtype=np.float32)
    if not np.isfinite(exact).all():
        raise CodecError(f"{int((~np.isfinite(exact)).sum())} of {exact.size} feature values are not finite")
    return exact


_CONSTANT = 1e-5
"""A deviation relative to magnitude: about a hundred roundings of a float32."""


def constant_channels(
    deviation: npt.NDArray[np.float64], limit: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """(C,) whether a channel varies by no more than float32 sums are rounded by.

    Args:
        deviation: (C,) standard deviations.
        limit: (C,) the largest magnitudes among the values.
    """
    return ~(deviation > _CONSTANT * limit)


_VALUES_AT_ONCE = 32 << 10
"""256 KiB of float64: what `channel_errors` makes of them stays in a processor's cache."""


def error_figures(x: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> dict[str, float]:
    """`channel_errors` by their `median` and `worst` over channels, and the index of the worst,
    `worst_channel`."""
    relative = channel_errors(x, decoded)
    worst = int(np.argmax(relative))
    return {
        "median": float(np.median(relative)),
        "worst": float(relative[worst]),
        "worst_channel": float(worst),
    }


def channel_errors(x: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The codec's error relative to each channel's standard deviation, float64 (channel,).

    Per channel: root mean square of `decoded - x` over the standard deviation of x, both over the values
    whose magnitude is not above the channel's 99.9th percentile, because a few outlier tokens at 50 sigma
    would inflate the deviation and hide the error they cause in all others. A channel that is constant up to
    what float32 sums are rounded by, as all are of a black image, counts as 0.

    Args:
        x: float (..., channel).
        decoded: the same after encode and decode.
    """
    values_VC, decoded_VC = (each.reshape(-1, x.shape[-1]) for each in (x, decoded))
    step = max(2, _VALUES_AT_ONCE // max(1, len(values_VC)))  # numpy sums a single line in another order
    blocks = max(1, x.shape[-1] // step)
    pairs = zip(*(np.array_split(each, blocks, axis=1) for each in (values_VC, decoded_VC)), strict=True)
    return np.concatenate([_errors_of_channels(*pair) for pair in pairs])


def _errors_of_channels(values_VC: npt.NDArray[Any], decoded_VC: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """`channel_errors` of (value, channel)."""
    values = np.ascontiguousarray(values_VC.T, dtype=np.float64)  # (channel, value)
    error = np.subtract(decoded_VC.T, values, order="C")
    size = np.abs(values)
    limit = _quantile(size, 0.999)
    kept = size <= limit[:, None]
    count = kept.sum(axis=1)
    values *= kept
    values -= (values.sum(axis=1) / count)[:, None]
    values *= kept
    error *= kept
    deviation = np.sqrt(np.einsum("cn,cn->c", values, values) / count)
    rms = np.sqrt(np.einsum("cn,cn->c", error, error) / count)
    varies = ~constant_channels(deviation, limit)
    relative: npt.NDArray[np.float64] = np.divide(rms, deviation, out=np.zeros_like(rms), where=varies)
    return relative


def _quantile(values: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    """Of each line of (channel, value), as numpy.quantile gives it for more time."""
    place = share * (values.shape[1] - 1)
    below = int(place)
    above = min(below + 1, values.shape[1] - 1)
    ordered = np.partition(values, (below, above), axis=1)
    found: npt.NDArray[np.float64] = ordered[:, below] + (place - below) * (
        ordered[:, above] - ordered[:, below]
    )
    return found
