"""q<error>, such as q2: a fitted rotation of channels, one uniform step a level, and zstd.

The error is that of each channel in percent of its standard deviation, e = N / 100. Fitted are the mean and
the deviation of each channel, over values up to its 99.9th percentile in magnitude as in `error_figures`, and
the rotation: the eigenvectors of the correlation of the standardised channels, the largest first (the
Karhunen-Loeve transform); the identity where fewer than 4 tokens a channel were seen.

    t     = (x - mean) / deviation in float32, rounded to multiples of 2^-16
    z     = t @ rotation
    code  = rint(z / step) half-to-even, step = e * sqrt(12) in float32; beyond +-32512 CodecError
    code  = q + 255 * q_high with q from -127 to 127, so that -128 stays the value of absent chunks
    x'    = mean + deviation * step * (code @ rotation^T), in float64, then rounded to float32

Rounding to a step of e * sqrt(12) errs by e, and a rotation leaves that as it is. The rotation is rounded to
multiples of 2^-20, so that all sums of the products are exact in float64 in any order: numpy and torch make
the same codes, and each row and cell by itself.

The rotation puts what channels share into few of them, whose codes are large while all others are small:
zstd (level 1, one frame a row, channel by channel) then takes 5 bits a value at e = 2 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.codecs.contract import Encoded, Part, State, constant_channels, error_figures, finite_float32
from stores.errors import CodecError

NUMBERS = (2, 5)
"""Those that are listed; any whole percentage is accepted."""
MOST_ERROR = 50
LARGEST = 127 + 255 * 127
"""Of a code: two digits of -127 to 127 to the base 255."""
BASE = 255
TOKEN_GRID = 2.0**16
"""Multiples of its inverse are what a standardised value is rounded to: 2^-16 is 1/2000 of q1's step."""
ROTATION_GRID = 2.0**20
FEWEST_TOKENS = 4
"""Of each channel: below, the rotation would be one of noise."""
_CLIP, _FIT_GRID = 8.0, 2.0**10
"""Outliers count as 8 deviations in the correlation, whose sums are exact on this grid (2^52)."""
_INLIERS = 0.999
_ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Rotated:
    """See the module; `state` is None before it is fitted."""

    percent: int
    state: Mapping[str, npt.NDArray[np.float32]] | None = None

    required_features = ("q",)
    formula = (
        "code = q + 255 * q_high; value = mean + deviation * step * (code @ rotation.T), with the arrays of "
        "the attribute codec_state"
    )
    numpy_example = """\
root = zarr.open_group("{folder}", mode="r")
level, state = root["bins/{bin}/levels/{level}"], root["{state}/{level}"]
code = level["q"][0].astype("float64") + 255.0 * level["q_high"][0]
turned = code @ state["rotation"][:].astype("float64").T
value = state["mean"][:] + state["deviation"][:].astype("float64") * state["step"][0] * turned
value = value.astype("float32")  # (y, x, channel), of clips (time, y, x, channel)
"""

    @property
    def name(self) -> str:
        return f"q{self.percent}"

    @property
    def error(self) -> float:
        """That it promises, in deviations of a channel."""
        return self.percent / 100

    @property
    def step(self) -> np.float32:
        """Of a code, in deviations: that of a uniform rounding which errs by `percent`."""
        return np.float32(self.error * 12**0.5)

    def parts(self, channels: int) -> Mapping[str, Part]:
        codes = Part(dtype=np.dtype(np.int8), width=channels, fill=-128, zstd_level=1, channel_first=True)
        return {"q": codes, "q_high": codes}

    def fit(self, x: npt.NDArray[Any]) -> State:
        """`mean`, `deviation` (C,), `rotation` (C, C) and `step` (1,), float32, from rows (..., y, x, C)."""
        tokens = finite_float32(x).reshape(-1, x.shape[-1])
        mean, deviation = _moments(tokens)
        rotation = np.eye(tokens.shape[1])
        if len(tokens) >= FEWEST_TOKENS * tokens.shape[1]:
            rotation = _eigenvectors(_correlation(tokens, mean, deviation))
        on_grid = np.rint(rotation * ROTATION_GRID) / ROTATION_GRID
        return {
            "mean": mean,
            "deviation": deviation,
            "rotation": on_grid.astype(np.float32),
            "step": np.array([self.step]),
        }

    def with_state(self, state: State) -> Rotated:
        """The codec of one level. Raises CodecError for arrays that `fit` cannot have made."""
        if problem := _wrong_state(state, self.step):
            raise CodecError(f"{self.name}: not a state of this codec: {problem}")
        return Rotated(self.percent, dict(state))

    @cached_property
    def fitted(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """The state. Raises CodecError before it is given."""
        if self.state is None:
            raise CodecError(f"{self.name} has to be fitted first")
        return self.state

    @cached_property
    def _rotation(self) -> npt.NDArray[np.float64]:
        return self.fitted["rotation"].astype(np.float64)

    def encode(self, x: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """`q` and `q_high` int8 (..., y, x, C), of memory (..., C, y, x), of features (..., y, x, C).

        Raises CodecError for non-finite features, and for a code beyond 16 bits.
        """
        exact, state = finite_float32(x), self.fitted
        if exact.shape[-1] != len(state["mean"]):
            raise CodecError(
                f"{self.name}: features of {exact.shape[-1]} channels, it was fitted to {len(state['mean'])}"
            )
        with np.errstate(over="ignore"):
            standard = (exact - state["mean"]) / state["deviation"]
        tokens = np.rint(standard.astype(np.float64) * TOKEN_GRID) / TOKEN_GRID
        turned = self._rotation.T @ np.swapaxes(tokens.reshape(*x.shape[:-3], -1, x.shape[-1]), -1, -2)
        code = np.rint(turned / float(self.step))
        if not (np.abs(code) <= LARGEST).all():
            raise CodecError(
                f"{self.name}: a feature is {np.abs(standard).max():.3g} deviations from its channel's mean, "
                f"beyond 16 bits of codes; int8 holds it"
            )
        high = np.rint(code / BASE)
        shape = (*x.shape[:-3], x.shape[-1], *x.shape[-3:-1])
        digits = {"q": code - BASE * high, "q_high": high}
        return {kind: np.moveaxis(d.astype(np.int8).reshape(shape), -3, -1) for kind, d in digits.items()}

    def decode(self, encoded: Encoded) -> npt.NDArray[np.float32]:
        state, low = self.fitted, encoded["q"]
        code = low.astype(np.float64) + BASE * encoded["q_high"].astype(np.float64)
        scale = state["deviation"].astype(np.float64) * float(state["step"][0])
        value = (code @ self._rotation.T) * scale + state["mean"]
        return np.ascontiguousarray(value, np.float32)

    def check(self, encoded: Encoded) -> None:
        _ = self.fitted
        for kind in ("q", "q_high"):
            if encoded[kind].min() < -127:
                raise CodecError(f"{kind} holds -128, the value of absent chunks, which is never encoded")

    def error_figures(self, x: npt.NDArray[Any]) -> dict[str, float]:
        return error_figures(x, self.decode(self.encode(x)))


def parse(number: int) -> Rotated:
    """q<number>. Raises CodecError for another error than 1 to 50 percent."""
    if not 1 <= number <= MOST_ERROR:
        raise CodecError(f"q{number}: expected an error of 1 to {MOST_ERROR} percent of a deviation")
    return Rotated(number)


def _moments(tokens: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and deviation of each channel over its inliers. A channel that is constant up to float32's
    rounding gets a hundredth of the median deviation: it may vary in other rows."""
    kept = int(_INLIERS * (len(tokens) - 1))
    limits, means, deviations = np.empty((3, tokens.shape[1]))
    for channel in range(tokens.shape[1]):
        values = tokens[:, channel].astype(np.float64)
        limits[channel] = np.partition(np.abs(values), kept)[kept]
        inliers = values[np.abs(values) <= limits[channel]]
        means[channel], deviations[channel] = inliers.mean(), inliers.std()
    is_constant = constant_channels(deviations, limits)
    others = deviations[~is_constant]
    deviations[is_constant] = np.median(others) / 100 if len(others) else 1.0
    smallest = np.finfo(np.float32).smallest_normal
    return means.astype(np.float32), np.maximum(deviations, smallest).astype(np.float32)


def _correlation(
    tokens: npt.NDArray[np.float32], mean: npt.NDArray[np.float32], deviation: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """(C, C), of whole numbers below 2^53, so that it does not depend on the order of the sums."""
    total = np.zeros((tokens.shape[1], tokens.shape[1]))
    for start in range(0, len(tokens), _ROWS_AT_ONCE):
        standard = ((tokens[start : start + _ROWS_AT_ONCE] - mean) / deviation).astype(np.float64)
        whole = np.rint(np.clip(standard, -_CLIP, _CLIP) * _FIT_GRID)
        total += whole.T @ whole
    return total


def _eigenvectors(symmetric: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """In columns, the largest eigenvalue first; the largest entry of each is positive."""
    vectors: npt.NDArray[np.float64] = np.linalg.eigh(symmetric)[1][:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    return vectors * np.where(vectors[largest, np.arange(len(vectors))] < 0, -1.0, 1.0)


def _wrong_state(state: State, step: np.float32) -> str | None:
    """What shows that `fit` did not make it; None for nothing."""
    if sorted(state) != ["deviation", "mean", "rotation", "step"]:
        return f"arrays {', '.join(sorted(state)[:8])}"
    channels = state["mean"].size
    shapes = {"mean": (channels,), "deviation": (channels,), "rotation": (channels, channels), "step": (1,)}
    for name, shape in shapes.items():
        found = state[name]
        if found.dtype != np.float32 or found.shape != shape or not np.isfinite(found).all():
            return f"{name} is {found.dtype} {found.shape}, expected finite float32 {shape}"
    if state["step"][0] != step:
        return f"step {state['step'][0]:g}, expected {step:g}"
    if not (state["deviation"] > 0).all():
        return "a deviation that is not above 0"
    whole = state["rotation"].astype(np.float64) * ROTATION_GRID
    lengths = np.square(whole).sum(axis=0) / ROTATION_GRID**2
    if (whole != np.rint(whole)).any() or (np.abs(lengths - 1) > 1e-3).any():
        return "the columns of rotation are not of length 1 on the grid of 2^-20"
    return None
