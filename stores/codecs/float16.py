"""float16: IEEE half precision, rounded half-to-even; refuses what it cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.codecs.contract import Encoded, Part, error_figures, finite_float32
from stores.errors import CodecError

_INFINITY, _MINUS_INFINITY = 0x7C00, 0xFC00
"""Bits: these and those above, up to the sign, are infinities and NaNs."""


@dataclass(frozen=True, slots=True)
class Float16:
    """See the module. There is no scale."""

    required_features: tuple[str, ...] = ()
    formula: str = "value = q"

    def parts(self, channels: int) -> Mapping[str, Part]:
        return {"q": Part(dtype=np.dtype("<f2"), width=channels)}

    def encode(self, x: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """`q` float16 of features (..., y, x, channel). Raises CodecError where one rounds beyond 65504."""
        exact = finite_float32(x)
        with np.errstate(over="ignore"):
            q = exact.astype(np.float16)
        if not np.isfinite(q).all():
            raise CodecError(
                f"a feature of magnitude {float(np.abs(exact).max()):g} exceeds float16's 65504; use int8"
            )
        return {"q": q}

    def decode(self, encoded: Encoded) -> npt.NDArray[np.float32]:
        return encoded["q"].astype(np.float32)

    def check(self, encoded: Encoded) -> None:
        q = encoded["q"]
        if q.view(np.int16).max() >= _INFINITY or q.view(np.uint16).max() >= _MINUS_INFINITY:
            raise CodecError("q holds a value that is not finite, which the encoder never produces")

    def error_figures(self, x: npt.NDArray[Any]) -> dict[str, float]:
        return error_figures(x, self.decode(self.encode(x)))


CODEC = Float16()
