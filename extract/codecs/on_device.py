"""Codecs on the device that made the features, by the names of `stores.codecs`.

A codec's device half is extract/codecs/devices/NAME.py, or an entry point of another package. Without one it
runs through numpy on the host: the same bytes, more slowly.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import cast

import numpy as np
from torch import Tensor

from extract.codecs.devices.contract import DeviceCodec, FittedDeviceCodec, finite
from extract.codecs.through_numpy import ThroughNumpy
from stores.codecs import codec, find_codec, needs_state
from stores.codecs.contract import FittedCodec
from stores.format.plan import StorePlan
from stores.plugins import Plugin, plugins

GROUP = "permafrost.codecs.devices"
"""Of the entry points by which installed packages add device halves."""


@cache
def device_codec(name: str) -> DeviceCodec:
    """The device half of a codec, or its numpy half on the host where it has none.

    Raises CodecError, listing the valid names, for a name without a numpy half.
    """
    made = codec(name)
    half, number = _device_half(name)
    if half is None:
        return ThroughNumpy(made)
    module = half.load()
    return cast(DeviceCodec, module.DEVICE_CODEC if number is None else module.parse(number))


@lru_cache(maxsize=4)  # plans of a process
def level_codecs(plan: StorePlan) -> Mapping[str, DeviceCodec]:
    """The device half of a plan's codec for each level, fitted where it takes a state.

    A plan whose codec has not been fitted yet gets one fitted to noise, to measure with: no store is made of
    it.
    """
    made = device_codec(plan.codec)
    if not needs_state(codec(plan.codec)):
        return dict.fromkeys(plan.pyramid.names, made)
    states = fitted_to_noise(plan).codec_state or {}
    return {level: cast(FittedDeviceCodec, made).with_state(state) for level, state in states.items()}


def fitted_to_noise(plan: StorePlan) -> StorePlan:
    """The plan with a state of its codec to measure with, where it takes one and has none yet."""
    made = codec(plan.codec)
    if not isinstance(made, FittedCodec) or plan.codec_state is not None:
        return plan
    noise = {
        level.name: np.random.default_rng(0).standard_normal((4, 8, 8, level.channels), dtype=np.float32)
        for level in plan.pyramid
    }
    return plan.with_state({level: made.fit(x) for level, x in noise.items()})


def has_device_half(name: str) -> bool:
    """Whether a codec encodes and decodes on the device. Raises CodecError for an unknown name."""
    return _device_half(name)[0] is not None


def encode(codec_name: str, x: Tensor) -> dict[str, Tensor]:
    """What a codec stores of features, byte-equal to `stores.codecs`; see `DeviceCodec.encode`."""
    return device_codec(codec_name).encode(x)


def decode(codec_name: str, encoded: Mapping[str, Tensor]) -> Tensor:
    """Float32 (..., y, x, C), in fresh memory, of what `encode` made of features.

    The same IEEE operations as `stores.codecs`, hence the same values on any device.

    >>> import torch
    >>> encoded = {"q": torch.ones(1, 2, 2, 3, dtype=torch.int8), "scale": torch.full((1, 3), 0.5)}
    >>> decode("int8", encoded).shape, float(decode("int8", encoded).sum())
    (torch.Size([1, 2, 2, 3]), 6.0)
    """
    return device_codec(codec_name).decode(encoded)


def checks(codec_name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) bool each, on the device: whether every value of the row x[n] is finite, and whether the codec can
    hold them all: finite and in its range."""
    are_finite = finite(x)
    return are_finite, device_codec(codec_name).holds(x, are_finite)


def _device_half(name: str) -> tuple[Plugin | None, int | None]:
    plugin, number = find_codec(name)
    return plugins(GROUP, "extract.codecs.devices").get(plugin.name), number
