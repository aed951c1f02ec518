"""The contract of a codec's device half: the bytes and values of its numpy half, computed by torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from stores.codecs.contract import State

SMALLEST_NORMAL = torch.finfo(torch.float32).smallest_normal


class DeviceCodec(Protocol):
    """A codec on the device that made the features. Implemented by each module of extract/codecs/devices as
    its `DEVICE_CODEC`, or by `parse(number)` where the numpy half has one.

    Every method runs eager and compiled, and waits for no device. A fitted codec has `with_state` too.
    """

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """What the codec stores of features, byte-equal to the numpy half.

        Rows with a value that `holds` denies become garbage, without an error.

        Args:
            x: float (N, [T,] y, x, C) on any device.

        Returns the arrays of the codec's `parts` by name, with the axes N and T in front, in memory as their
        chunks are stored.
        """

    def decode(self, encoded: Mapping[str, Tensor]) -> Tensor:
        """Float32 (..., y, x, C) in fresh memory, equal to the numpy half's on any device, of q<error> on a
        CPU."""

    def holds(self, x: Tensor, are_finite: Tensor) -> Tensor:
        """(N,) bool on the device: whether the codec can hold every value of the row x[n].

        Args:
            x: as of `encode`.
            are_finite: (N,) bool, `finite(x)`: the answer of a codec that holds every finite value.
        """


@runtime_checkable
class EncodesAndChecks(Protocol):
    """A device half for which `encode` and `holds` are one piece of work."""

    def encode_and_check(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """What `encode` and `holds` return."""


class FittedDeviceCodec(DeviceCodec, Protocol):
    """The device half of a `stores.codecs.contract.FittedCodec`."""

    def with_state(self, state: State) -> DeviceCodec:
        """The codec of one level. Raises CodecError for arrays that `fit` cannot have made."""


def finite(x: Tensor) -> Tensor:
    """(N,) bool: whether every value of the row x[n] is finite.

    >>> finite(torch.tensor([[1.0, 2.0], [1.0, torch.inf], [torch.nan, 0.0]])).tolist()
    [True, False, False]
    """
    # Infinity and what is not a number win every maximum: one pass instead of three.
    return x.flatten(1).abs().amax(1).isfinite()


def largest(x: Tensor) -> Tensor:
    """(N, [T,] C): the largest magnitude of each channel. Axis by axis: both at once take a CPU ten times as
    long where channels are few."""
    return x.abs().amax(-3).amax(-2)


def quotient(x: Tensor, divisor: Tensor) -> Tensor:
    """The IEEE float32 quotient of two float32, in fresh memory.

    A GPU's quotients are taken in float64 and rounded to float32. A float64 quotient of two float32 rounded
    once more is the IEEE float32 quotient (53 >= 2 * 24 + 2 bits, so the second rounding never meets a false
    tie), whereas a float32 division is approximate in compiled GPU code, and a multiplication by a reciprocal
    where the divisor is a Python number. A CPU divides exactly, in half the time.
    """
    return x / divisor if x.is_cpu else (x.double() / divisor).float()
