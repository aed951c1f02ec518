"""Channels-last weights, the memory format of the features."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def channels_last(module: Module) -> Module:
    """The module itself, its convolutions' weights stored channels last; their values stay.

    Features are channels last, and a convolution over them would reorder its weights in every call: a step on
    a CPU takes 4 to 10 % less (`fpn` to `m2f-pd1-td3`).
    """
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
