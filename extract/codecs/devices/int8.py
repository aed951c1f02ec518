"""int8 on the device; see stores.codecs.int8."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from extract.codecs.devices.contract import SMALLEST_NORMAL, largest, quotient


class Int8:
    """See the module. `scale` is float32 (N, [T,] C)."""

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        exact = x.float()
        scale = (largest(exact).double() / 127).float()
        scale = torch.where(scale < SMALLEST_NORMAL, 0.0, scale)
        divisor = torch.where(scale == 0, torch.inf, scale)
        codes = quotient(exact, divisor[..., None, None, :]).round_().clamp_(-127, 127)
        return {"q": codes.to(torch.int8), "scale": scale}

    def decode(self, encoded: Mapping[str, Tensor]) -> Tensor:
        scale = encoded["scale"].unsqueeze(-2).unsqueeze(-2)
        if not encoded["q"].is_cpu:
            return encoded["q"] * scale  # one kernel; a CPU would take up to twice as long as for both steps
        x = encoded["q"].to(torch.float32, copy=True)
        x *= scale
        return x

    def holds(self, x: Tensor, are_finite: Tensor) -> Tensor:
        return are_finite


DEVICE_CODEC = Int8()
