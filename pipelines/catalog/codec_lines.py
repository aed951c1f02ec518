"""Rate and error of a store's levels, as `info` and `status` show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stores.checks.level_figures import LevelFigures


def figures_of_level(figures: Mapping[str, LevelFigures], level: str) -> dict[str, Any]:
    """For the summary: `bits_per_value`, `median`, `worst` and so on; empty before the first shard."""
    return asdict(figures[level]) if level in figures else {}


def codec_lines(codec: str, levels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line a level; none before the first finished shard.

    >>> figures = {"bits_per_value": 5.13, "median": 0.0196, "worst": 0.0203, "worst_channel": 7, "shards": 3}
    >>> codec_lines("q2", {"p4": figures})
    ['codec     q2 p4: 5.13 bits a value; error 1.96 % of a deviation, worst channel (7) 2.03 %']
    """
    return [_line(codec, level, fields) for level, fields in levels.items() if "bits_per_value" in fields]


def _line(codec: str, level: str, fields: Mapping[str, Any]) -> str:
    rate = f"codec     {codec} {level}: {fields['bits_per_value']:.2f} bits a value"
    if fields["median"] is None:
        return rate
    return (
        f"{rate}; error {fields['median']:.2%} of a deviation, worst channel ({fields['worst_channel']}) "
        f"{fields['worst']:.2%}"
    ).replace("%", " %")
