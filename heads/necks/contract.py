"""The interface of necks: maps of a pyramid in, maps of one width out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

NECK_NORMS = ("gn", "none")


class BuildNeck(Protocol):
    """Builds a module that takes maps (N, in_channels[i], y_i, x_i), finest first.

    It returns a list of maps (N, width, y_i, x_i) and `extra_levels` coarser ones, each of ceil(y / 2) x
    ceil(x / 2) cells of the one before it.

    Args:
        in_channels: channels of the input maps, finest first; two maps or more.
        width: channels of every output map.
        depth: what `neck_depth` counts, 1 to the neck's `max_depth`.
        extra_levels: coarser levels to add: 1 turns P2-P5 into P2-P6.
        norm: one of NECK_NORMS, for a neck whose convolutions have a norm.
    """

    def __call__(
        self, in_channels: Sequence[int], width: int, *, depth: int, extra_levels: int, norm: str
    ) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Neck:
    """One neck of the table."""

    build: BuildNeck
    max_depth: int
    """Largest `neck_depth`: layers or blocks; 1 where nothing is repeated."""
    compiles: bool
    """Whether torch.compile speeds up its training."""
