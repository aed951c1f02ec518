"""The codecs of `stores.codecs` on the device that made the features: the same bytes, without a copy first.

A GPU's quotients are taken in float64 and rounded to float32. A float64 quotient of two float32 rounded once
more is the IEEE float32 quotient (53 >= 2 * 24 + 2 bits, so the second rounding never meets a false tie),
whereas a float32 division is approximate in compiled GPU code, and a multiplication by a reciprocal where the
divisor is a Python number. A CPU divides exactly, in half the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from stores.codecs.int4 import BLOCK_CHANNELS

_SMALLEST_NORMAL = torch.finfo(torch.float32).smallest_normal


def encode(codec_name: str, x: Tensor) -> dict[str, Tensor]:
    """What the codec stores of features, byte-equal to `stores.codecs` in eager and in compiled code.

    Rows with a value that `holds` denies come out as garbage, without an error: check first, skip them.

    Args:
        codec_name: int8, float16 or int4.
        x: float (N, [T,] y, x, C) on any device.

    Returns:
        int8: `q` int8 like x, `scale` float32 (N, [T,] C). float16: `q` float16 like x. int4: `q` uint8
        (N, [T,] y, x, C/2), `block` uint8 (N, [T,] y, x, C/32), both rounded up, `scale` as of int8.

    Raises:
        ValueError: no such codec on the device.
    """
    return _known(codec_name)(x)


def decode(encoded: Mapping[str, Tensor]) -> Tensor:
    """Float32 (..., y, x, C), in fresh memory, of what `encode` made of features.

    The same IEEE operations as `stores.codecs`, hence the same values on any device.

    >>> encoded = {"q": torch.ones(1, 2, 2, 3, dtype=torch.int8), "scale": torch.full((1, 3), 0.5)}
    >>> decode(encoded).shape, float(decode(encoded).sum())
    (torch.Size([1, 2, 2, 3]), 6.0)
    """
    x = _int4_products(encoded) if "block" in encoded else encoded["q"].to(torch.float32, copy=True)
    if "scale" in encoded:
        x *= encoded["scale"].unsqueeze(-2).unsqueeze(-2)
    return x


def checks(codec_name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) bool each, on the device: whether every value of the row x[n] is finite, and whether the codec can
    hold them all: finite and in its range."""
    _known(codec_name)
    are_finite = _finite(x)
    # Infinity stays infinity in float16, and what rounds beyond 65504 becomes infinity.
    return are_finite, _finite(x.half()) if codec_name == "float16" else are_finite


def _finite(x: Tensor) -> Tensor:
    # Infinity and what is not a number win every maximum: one pass instead of three.
    return x.flatten(1).abs().amax(1).isfinite()


def _int8(x: Tensor) -> dict[str, Tensor]:
    exact = x.float()
    scale = (_largest(exact).double() / 127).float()
    scale = torch.where(scale < _SMALLEST_NORMAL, 0.0, scale)
    divisor = torch.where(scale == 0, torch.inf, scale)
    quotient = _quotient(exact, divisor[..., None, None, :])
    return {"q": quotient.round_().clamp_(-127, 127).to(torch.int8), "scale": scale}


def _float16(x: Tensor) -> dict[str, Tensor]:
    return {"q": x.half()}


def _int4(x: Tensor) -> dict[str, Tensor]:
    exact = x.float()
    scale = (_largest(exact).double() / 1785).float()
    scale = torch.where(scale < _SMALLEST_NORMAL, 0.0, scale)
    divisor = torch.where(scale == 0, torch.inf, scale)
    y = _quotient(exact, divisor[..., None, None, :])
    channels = y.shape[-1]
    blocks = F.pad(y, (0, -channels % BLOCK_CHANNELS)).reshape(*y.shape[:-1], -1, BLOCK_CHANNELS)
    step = (blocks.abs().amax(-1).double() / 7).float().ceil().clamp(1, 255)
    quotient = _quotient(blocks, step[..., None])
    bits = quotient.round_().clamp_(-7, 7).to(torch.int8).flatten(-2) & 15
    packed = (bits[..., 0::2] | (bits[..., 1::2] << 4)).view(torch.uint8)[..., : -(-channels // 2)]
    return {"q": packed.contiguous(), "block": (step - 1).to(torch.uint8), "scale": scale}


def _largest(x: Tensor) -> Tensor:
    """(N, [T,] C): the largest magnitude of each channel. Axis by axis: both at once take a CPU ten times as
    long where channels are few."""
    return x.abs().amax(-3).amax(-2)


def _quotient(x: Tensor, divisor: Tensor) -> Tensor:
    """The IEEE float32 quotient of two float32, in fresh memory."""
    return x / divisor if x.is_cpu else (x.double() / divisor).float()


def _int4_products(encoded: Mapping[str, Tensor]) -> Tensor:
    """Codes times the steps of their blocks, which float32 holds exactly: (..., y, x, C)."""
    packed, channels = encoded["q"].view(torch.int8), encoded["scale"].shape[-1]
    codes = torch.stack([(packed << 4) >> 4, packed >> 4], dim=-1).flatten(-2)[..., :channels]
    x, steps = codes.to(torch.float32), encoded["block"].to(torch.float32) + 1
    if channels % BLOCK_CHANNELS:
        x *= steps.repeat_interleave(BLOCK_CHANNELS, dim=-1)[..., :channels]
    else:  # a third of the time
        x.view(*steps.shape, BLOCK_CHANNELS).mul_(steps[..., None])
    return x


_ENCODERS: Mapping[str, Callable[[Tensor], dict[str, Tensor]]] = {
    "int8": _int8,
    "float16": _float16,
    "int4": _int4,
}


def _known(codec_name: str) -> Callable[[Tensor], dict[str, Tensor]]:
    if codec_name not in _ENCODERS:
        raise ValueError(f"no codec {codec_name!r} on the device; there are {', '.join(_ENCODERS)}")
    return _ENCODERS[codec_name]
