"""q<error> on the device; see stores.codecs.q.

On a CPU the products are taken in float64, where they are exact: the bytes and the values of the numpy half.
On a GPU codes are made that way too, while values are decoded in float32, a product a map: they differ from
the numpy half's by float32 roundings, far below the codec's error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from extract.codecs.devices.contract import quotient
from stores.codecs import q as on_host
from stores.codecs.contract import State


class Rotated:
    """See the module. `q` and `q_high` are int8 (N, [T,] y, x, C), of memory (N, [T,] C, y, x)."""

    def __init__(self, codec: on_host.Rotated) -> None:
        self._codec = codec
        self._on = lru_cache(maxsize=4)(self._arrays)  # by device

    def with_state(self, state: State) -> Rotated:
        """The codec of one level. Raises CodecError for arrays that `fit` cannot have made."""
        return Rotated(self._codec.with_state(state))

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        return self.encode_and_check(x)[0]

    def holds(self, x: Tensor, are_finite: Tensor) -> Tensor:
        return self.encode_and_check(x)[1]

    def encode_and_check(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """`encode` and `holds` at once: both follow from the codes."""
        mean, deviation, rotation, _ = self._on(x.device)
        standard = quotient(x.float() - mean.float(), deviation.float()).double()
        tokens = (standard * on_host.TOKEN_GRID).round() / on_host.TOKEN_GRID
        maps = tokens.flatten(0, -4).flatten(1, 2).transpose(1, 2)  # (N * T, C, y * x)
        code = (_turned(rotation.T, maps) / float(self._codec.step)).round_()
        fits = (code.abs().amax((1, 2)) <= on_host.LARGEST).reshape(len(x), -1).all(1)
        high = (code / on_host.BASE).round_()
        shape = (*x.shape[:-3], x.shape[-1], *x.shape[-3:-1])
        digits = {"q": code - on_host.BASE * high, "q_high": high}
        return {kind: d.to(torch.int8).reshape(shape).movedim(-3, -1) for kind, d in digits.items()}, fits

    def decode(self, encoded: Mapping[str, Tensor]) -> Tensor:
        low, high = (encoded[kind].movedim(-1, -3).flatten(-2) for kind in ("q", "q_high"))
        mean, deviation, rotation, step = self._on(low.device)
        dtype = torch.float64 if low.is_cpu else torch.float32
        code = (low.to(dtype) + on_host.BASE * high.to(dtype)).transpose(-1, -2)  # (..., y * x, C)
        scale = (deviation * step).to(dtype)
        value = (_cells(code, rotation.T.to(dtype)) * scale + mean.to(dtype)).float()
        return value.reshape(encoded["q"].shape)

    def _arrays(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, deviation, rotation and step in float64."""
        state = self._codec.fitted
        mean, deviation, rotation, step = (
            torch.from_numpy(state[name].astype("float64")).to(device)
            for name in ("mean", "deviation", "rotation", "step")
        )
        return mean, deviation, rotation, step


def _turned(rotation: Tensor, maps: Tensor) -> Tensor:
    """(B, C, P) of (C, C) and (B, C, P)."""
    if maps.is_cpu and not torch.compiler.is_compiling():  # one product after another: less memory
        return torch.stack([rotation @ each for each in maps])
    return rotation @ maps


def _cells(code: Tensor, rotation: Tensor) -> Tensor:
    """(..., P, C) of (..., P, C) and (C, C), which lies in memory by cells."""
    if code.shape[-2] == 1:  # single cells: one product of all
        return code.reshape(-1, code.shape[-1]).mm(rotation).reshape(code.shape)
    return code @ rotation


def parse(number: int) -> Rotated:
    """q<number>. Raises CodecError for a number that the numpy half refuses."""
    return Rotated(on_host.parse(number))
