"""int4 (unlisted): blocks of 32 channels of a cell with a step each, over one scale for each row and channel.

A channel is first brought to the others' size by its own scale, as int8 does, because the channels of a
backbone differ by an order of magnitude and the largest would take all the steps of its block. In float32
with IEEE division, over the y and x of a row (and frame):

    scale = max|x| / 1785 for each channel; zero or subnormal: scale 0, and y = 0 throughout
    y     = x / scale, within +-1785 = 7 * 255
    step  = ceil(max|y| / 7) over the block, clipped to 1..255
    q     = rint(y / step) half-to-even, clipped to +-7
    x'    = (q * step) * scale: the product in the bracket is a small whole number, so one rounding is all

Stored are q, two channels a byte in two's complement, the even one in the low four bits and a last odd one
with zeros beside it; `block` = step - 1, one byte a block; and `scale`. That is 4.25 bits a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.codecs.contract import Encoded, Part, error_figures, finite_float32
from stores.errors import CodecError

BLOCK_CHANNELS = 32
"""16 lessen the error by a tenth and cost a seventeenth more bytes; see docs/store-format.md."""
_LARGEST = np.float32(7)
_MOST_STEPS = 255
_RANGE = np.float32(7 * _MOST_STEPS)
_SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal


@dataclass(frozen=True, slots=True)
class Int4:
    """See the module."""

    required_features: tuple[str, ...] = ("int4-blocks",)
    formula: str = (
        "value = (code * (block + 1)) * scale; a byte of q holds the codes of two channels, -7 to 7, the "
        "even one in its low four bits"
    )

    def parts(self, channels: int) -> Mapping[str, Part]:
        blocks = -(-channels // BLOCK_CHANNELS)
        return {
            "q": Part(
                dtype=np.dtype(np.uint8),
                fill=0x88,  # -8 twice
                width=-(-channels // 2),
                dim="channel_pair",
                attributes={"logical_dtype": "int4", "channels": channels},
            ),
            "block": Part(dtype=np.dtype(np.uint8), fill=255, width=blocks, dim="block"),
            "scale": Part(dtype=np.dtype("<f4"), width=channels, per_cell=False),
        }

    def encode(self, x: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """`q` uint8 (..., y, x, C/2 rounded up), `block` uint8 (..., y, x, C/32 rounded up) and `scale`
        float32 (..., C) of features (..., y, x, C).

        >>> import numpy as np
        >>> encoded = Int4().encode(np.array([[[255.0, -255.0, 0.0]], [[1785.0, -1785.0, 0.0]]], np.float32))
        >>> encoded["q"].tolist(), encoded["block"].tolist(), encoded["scale"].tolist()
        ([[[151, 0]], [[151, 0]]], [[[36]], [[254]]], [1.0, 1.0, 0.0])
        """
        exact = finite_float32(x)
        scale = np.abs(exact).max(axis=(-3, -2)) / _RANGE
        scale[scale < _SMALLEST_NORMAL] = 0
        divisor = np.where(scale == 0, np.float32(np.inf), scale)
        y = _in_blocks(np.asarray(exact / divisor[..., None, None, :], np.float32))
        step = np.clip(np.ceil(np.abs(y).max(axis=-1) / _LARGEST), 1, _MOST_STEPS)
        q = np.clip(np.rint(y / step[..., None]), -_LARGEST, _LARGEST).astype(np.int8)
        codes = q.reshape(*q.shape[:-2], -1)[..., : exact.shape[-1]]
        return {"q": _packed(codes), "block": (step - 1).astype(np.uint8), "scale": scale}

    def decode(self, encoded: Encoded) -> npt.NDArray[np.float32]:
        scale: npt.NDArray[np.float32] = encoded["scale"]
        channels = scale.shape[-1]
        step = np.repeat(encoded["block"].astype(np.int16) + np.int16(1), BLOCK_CHANNELS, axis=-1)
        whole = _unpacked(encoded["q"], channels) * step[..., :channels]
        return whole.astype(np.float32) * scale[..., None, None, :]

    def check(self, encoded: Encoded) -> None:
        packed, scale = encoded["q"], encoded["scale"]
        if ((packed & 15) == 8).any() or (packed >> 4 == 8).any():
            raise CodecError("q holds -8, the value of absent chunks, which the encoder never produces")
        if scale.shape[-1] % 2 and (packed[..., -1] >> 4).any():
            raise CodecError("q holds a code beside the last of an odd number of channels")
        if encoded["block"].max() > _MOST_STEPS - 1:
            raise CodecError("a block has 256 steps, which the encoder never produces")
        if not np.isfinite(scale).all() or (scale < 0).any():
            raise CodecError("a scale is negative or not finite: the features were not finite when encoded")

    def error_figures(self, x: npt.NDArray[Any]) -> dict[str, float]:
        return error_figures(x, self.decode(self.encode(x)))


def _in_blocks(y: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(..., C) as (..., blocks, 32), zeros after the last channel."""
    missing = -y.shape[-1] % BLOCK_CHANNELS
    padded = np.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, missing)]) if missing else y
    return padded.reshape(*y.shape[:-1], -1, BLOCK_CHANNELS)


def _packed(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Codes -7..7 (..., C) two a byte."""
    bits = codes.view(np.uint8) & np.uint8(15)
    packed = bits[..., 0::2].copy()
    odd = bits[..., 1::2]
    packed[..., : odd.shape[-1]] |= odd << np.uint8(4)
    return packed


def _unpacked(packed: npt.NDArray[np.uint8], channels: int) -> npt.NDArray[np.int16]:
    """Codes (..., C) of bytes."""
    codes = np.empty((*packed.shape[:-1], channels), np.int16)
    signed = packed.view(np.int8)
    codes[..., 0::2] = (signed << 4).astype(np.int8) >> 4
    codes[..., 1::2] = (signed >> 4)[..., : channels // 2]
    return codes


CODEC = Int4()
LISTED = False
"""Replaced by q<error>, which errs by half as much at these bytes."""
