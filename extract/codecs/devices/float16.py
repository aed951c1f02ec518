"""float16 on the device; see stores.codecs.float16."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from extract.codecs.devices.contract import finite


class Float16:
    """See the module."""

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        return {"q": x.half()}

    def decode(self, encoded: Mapping[str, Tensor]) -> Tensor:
        return encoded["q"].to(torch.float32, copy=True)

    def holds(self, x: Tensor, are_finite: Tensor) -> Tensor:
        return finite(x.half())  # infinity stays infinity, and what rounds beyond 65504 becomes it


DEVICE_CODEC = Float16()
