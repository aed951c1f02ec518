"""int8: symmetric, one scale for each row (and frame) and channel.

In float32 with IEEE division: scale = max|x| / 127 over y and x, q = rint(x / scale) half-to-even, clipped to
+-127. A channel whose scale is zero or subnormal becomes scale 0, q 0, because devices that flush
subnormals would disagree on it. The same bytes come from numpy, eager and compiled device code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.codecs.contract import Encoded, Part, error_figures, finite_float32
from stores.errors import CodecError

_SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal
_LARGEST = np.float32(127)


@dataclass(frozen=True, slots=True)
class Int8:
    """See the module. `scale` is float32 (..., channel): the features' shape without y and x."""

    required_features: tuple[str, ...] = ()
    formula: str = "value = q * scale"

    def parts(self, channels: int) -> Mapping[str, Part]:
        return {
            "q": Part(dtype=np.dtype(np.int8), fill=-128, width=channels),
            "scale": Part(dtype=np.dtype("<f4"), width=channels, per_cell=False),
        }

    def encode(self, x: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """`q` int8 like x and `scale` float32 (..., channel) of features (..., y, x, channel).

        >>> import numpy as np
        >>> encoded = Int8().encode(np.array([[[1.0], [-127.0], [2.5]]], np.float32))
        >>> encoded["q"].ravel().tolist(), encoded["scale"].tolist()
        ([1, -127, 2], [1.0])
        """
        exact = finite_float32(x)
        scale = np.abs(exact).max(axis=(-3, -2)) / _LARGEST
        scale[scale < _SMALLEST_NORMAL] = 0
        divisor = np.where(
            scale == 0, np.float32(np.inf), scale
        )  # x / inf is 0, without a branch or a warning
        q = np.rint(exact / divisor[..., None, None, :])
        np.clip(q, -_LARGEST, _LARGEST, out=q)
        return {"q": q.astype(np.int8), "scale": scale}

    def decode(self, encoded: Encoded) -> npt.NDArray[np.float32]:
        scale: npt.NDArray[np.float32] = encoded["scale"]
        return encoded["q"].astype(np.float32) * scale[..., None, None, :]

    def check(self, encoded: Encoded) -> None:
        if encoded["q"].min() < -127:
            raise CodecError("q holds -128, the value of absent chunks, which the encoder never produces")
        scale = encoded["scale"]
        if not (scale.min() >= 0 and scale.max() < np.inf):  # neither of which a NaN is
            raise CodecError("a scale is negative or not finite: the features were not finite when encoded")

    def error_figures(self, x: npt.NDArray[Any]) -> dict[str, float]:
        return error_figures(x, self.decode(self.encode(x)))


CODEC = Int8()
