"""float16: IEEE half precision, rounded half-to-even; refuses what it cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.codecs.contract import Encoded, Part, error_figures, finite_float32
from stores.errors import CodecError

_INFINITY_SHIFTED = np.uint16(0xF800)  # 0x7C00 << 1: the sign shifted out, this and above is infinity or NaN


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
        bits = encoded["q"].view(np.uint16)
        if (bits << np.uint16(1)).max() >= _INFINITY_SHIFTED:
            raise CodecError("q holds a value that is not finite, which the encoder never produces")

    def error_figures(self, x: npt.NDArray[Any]) -> dict[str, float]:
        return error_figures(x, self.decode(self.encode(x)))


CODEC = Float16()
