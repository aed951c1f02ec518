"""Levels and pyramids: the feature maps that a backbone outputs, a store holds and a head reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LEVEL_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?")
ONE_CELL_PX = 1 << 16
"""The stride of a level of one cell for a whole image of any size: a pooled vector, or tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One map of a pyramid.

    Raises ValueError for a name outside `[a-z][a-z0-9_]*`, or two such with a dot between them, or a size
    below 1.
    """

    name: str
    """As in the papers: p2..p5 for strides 4..32; the others are listed in extract/backbones/levels.py."""
    stride_px: float
    """Input pixels per cell, a whole number in stores; ONE_CELL_PX for one cell an image."""
    channels: int
    stage: int
    """The stage of the backbone that outputs it, of a plain ViT the block, from 1."""

    def __post_init__(self) -> None:
        if not _LEVEL_NAME.fullmatch(self.name):
            raise ValueError(f"level name {self.name!r}: expected {_LEVEL_NAME.pattern}, such as 'p4'")
        for field in ("stride_px", "channels", "stage"):
            if getattr(self, field) < 1:
                raise ValueError(f"level {self.name}: {field} is {getattr(self, field)}, expected 1 or more")

    @property
    def is_pooled(self) -> bool:
        """Whether it is one cell an image, (C, 1, 1): a pooled vector, or tokens."""
        return self.stride_px >= ONE_CELL_PX

    def cells(self, size_px: int) -> int:
        """Cells along an axis of `size_px` input pixels; a last partial cell counts.

        >>> Level(name="p4", stride_px=16, channels=384, stage=3).cells(500)
        32
        """
        return int(-(-size_px // self.stride_px))


@dataclass(frozen=True, slots=True)
class PyramidSpec:
    """The levels of a pyramid, finest first. Raises ValueError for duplicate names or none at all."""

    levels: tuple[Level, ...]

    def __post_init__(self) -> None:
        if not self.levels:
            raise ValueError("a pyramid needs at least one level")
        if len(set(self.names)) != len(self.levels):
            raise ValueError(f"duplicate level names in {self.names}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(level.name for level in self.levels)

    def __iter__(self) -> Iterator[Level]:
        return iter(self.levels)

    def __len__(self) -> int:
        return len(self.levels)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Level:
        for level in self.levels:
            if level.name == name:
                return level
        raise KeyError(f"no level {name!r} in this pyramid; available: {', '.join(self.names)}")

    def select(self, names: Sequence[str]) -> PyramidSpec:
        """The levels of `names` in pyramid order. Raises KeyError for one that is missing."""
        wanted = {self[name].name for name in names}
        return PyramidSpec(tuple(level for level in self.levels if level.name in wanted))

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {"name": lv.name, "stride_px": lv.stride_px, "channels": lv.channels, "stage": lv.stage}
            for lv in self.levels
        ]

    @classmethod
    def from_json(cls, levels: Sequence[Mapping[str, Any]]) -> PyramidSpec:
        return cls(tuple(Level(**level) for level in levels))
