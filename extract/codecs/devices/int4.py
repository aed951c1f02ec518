"""int4 on the device; see stores.codecs.int4."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.codecs.devices.contract import SMALLEST_NORMAL, largest, quotient
from stores.codecs.int4 import BLOCK_CHANNELS


class Int4:
    """See the module. `q` is uint8 (N, [T,] y, x, C/2), `block` uint8 (N, [T,] y, x, C/32), both rounded up,
    `scale` float32 (N, [T,] C)."""

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        exact = x.float()
        scale = (largest(exact).double() / 1785).float()
        scale = torch.where(scale < SMALLEST_NORMAL, 0.0, scale)
        divisor = torch.where(scale == 0, torch.inf, scale)
        y = quotient(exact, divisor[..., None, None, :])
        channels = y.shape[-1]
        blocks = F.pad(y, (0, -channels % BLOCK_CHANNELS)).reshape(*y.shape[:-1], -1, BLOCK_CHANNELS)
        step = (blocks.abs().amax(-1).double() / 7).float().ceil().clamp(1, 255)
        codes = quotient(blocks, step[..., None]).round_().clamp_(-7, 7)
        bits = codes.to(torch.int8).flatten(-2) & 15
        packed = (bits[..., 0::2] | (bits[..., 1::2] << 4)).view(torch.uint8)[..., : -(-channels // 2)]
        return {"q": packed.contiguous(), "block": (step - 1).to(torch.uint8), "scale": scale}

    def decode(self, encoded: Mapping[str, Tensor]) -> Tensor:
        x = _products(encoded)
        x *= encoded["scale"].unsqueeze(-2).unsqueeze(-2)
        return x

    def holds(self, x: Tensor, are_finite: Tensor) -> Tensor:
        return are_finite


def _products(encoded: Mapping[str, Tensor]) -> Tensor:
    """Codes times the steps of their blocks, which float32 holds exactly: (..., y, x, C)."""
    packed, channels = encoded["q"].view(torch.int8), encoded["scale"].shape[-1]
    codes = torch.stack([(packed << 4) >> 4, packed >> 4], dim=-1).flatten(-2)[..., :channels]
    x, steps = codes.to(torch.float32), encoded["block"].to(torch.float32) + 1
    if channels % BLOCK_CHANNELS:
        x *= steps.repeat_interleave(BLOCK_CHANNELS, dim=-1)[..., :channels]
    else:  # a third of the time
        x.view(*steps.shape, BLOCK_CHANNELS).mul_(steps[..., None])
    return x


DEVICE_CODEC = Int4()
