"""Dropout of whole channels with the caller's generator, so that heads trained together stay independent."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_channels(x_NCYX: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Zeroes each channel of each image with `probability` and scales the rest up, as torch's Dropout2d.

    The mask is drawn on the generator's device: a CPU generator gives the same mask for maps on any device.
    None draws from torch's global generator.
    """
    if probability == 0:
        return x_NCYX
    device = x_NCYX.device if generator is None else generator.device
    keep_NC11 = torch.empty((*x_NCYX.shape[:2], 1, 1), device=device)
    keep_NC11.bernoulli_(1 - probability, generator=generator).div_(1 - probability)
    return x_NCYX * keep_NC11.to(device=x_NCYX.device, dtype=x_NCYX.dtype, non_blocking=True)
