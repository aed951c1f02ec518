"""The codecs of `stores.codecs` on the device that made the features: the same bytes, without a copy first.

Quotients are taken in float64 and rounded to float32. A float64 quotient of two float32 rounded once more is
the IEEE float32 quotient (53 >= 2 * 24 + 2 bits, so the second rounding never meets a false tie), whereas a
float32 division is approximate in compiled GPU code, and a multiplication by a reciprocal where the divisor
is a Python number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_SMALLEST_NORMAL = torch.finfo(torch.float32).smallest_normal


def encode(codec_name: str, x: Tensor) -> dict[str, Tensor]:
    """What the codec stores of features, byte-equal to `stores.codecs` in eager and in compiled code.

    Rows with a value that `holds` denies come out as garbage, without an error: check first, skip them.

    Args:
        codec_name: int8 or float16.
        x: float (N, [T,] y, x, C) on any device.

    Returns:
        int8: `q` int8 like x, `scale` float32 (N, [T,] C). float16: `q` float16 like x.

    Raises:
        ValueError: no such codec on the device.
    """
    return _known(codec_name)(x)


def finite(x: Tensor) -> Tensor:
    """(N,) bool on the device: whether every value of the row x[n] is finite."""
    return x.isfinite().flatten(1).all(1)


def holds(codec_name: str, x: Tensor) -> Tensor:
    """(N,) bool on the device: whether the codec can hold every value of the row: finite and in its range."""
    _known(codec_name)
    # Infinity stays infinity in float16, and what rounds beyond 65504 becomes infinity.
    return finite(x.half() if codec_name == "float16" else x)


def _int8(x: Tensor) -> dict[str, Tensor]:
    exact = x.float()
    scale = (exact.abs().amax((-3, -2)).double() / 127).float()
    scale = torch.where(scale < _SMALLEST_NORMAL, 0.0, scale)
    divisor = torch.where(scale == 0, torch.inf, scale)
    quotient = (exact.double() / divisor[..., None, None, :]).float()
    return {"q": quotient.round().clamp(-127, 127).to(torch.int8), "scale": scale}


def _float16(x: Tensor) -> dict[str, Tensor]:
    return {"q": x.half()}


_ENCODERS: Mapping[str, Callable[[Tensor], dict[str, Tensor]]] = {"int8": _int8, "float16": _float16}


def _known(codec_name: str) -> Callable[[Tensor], dict[str, Tensor]]:
    if codec_name not in _ENCODERS:
        raise ValueError(f"no codec {codec_name!r} on the device; there are {', '.join(_ENCODERS)}")
    return _ENCODERS[codec_name]
