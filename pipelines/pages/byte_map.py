"""Byte map of a store: a rectangle for each bin, cut into levels, areas in proportion to bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_PALE = ("#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#084594")
"""From light to dark, so that levels differ in grey."""
MAX_BINS = 24
"""Bins that are drawn one by one; the others together as the last."""
WIDTH, HEIGHT = 1000, 320


@dataclass(frozen=True, slots=True)
class Tile:
    """A level of a bin, in units of the drawing."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    text: str
    bytes: int


def byte_tiles(bytes_by_bin: Mapping[str, Mapping[str, int]]) -> list[Tile]:
    """Tiles that fill WIDTH x HEIGHT.

    >>> tiles = byte_tiles({"64x64": {"p4": 300, "p5": 100}, "32x32": {"p4": 600}})
    >>> [(tile.text, round(tile.width), round(tile.height)) for tile in tiles]
    [('32x32 p4', 600, 320), ('64x64 p4', 400, 240), ('64x64 p5', 400, 80)]
    """
    ordered = sorted(bytes_by_bin.items(), key=lambda each: -sum(each[1].values()))
    shown, rest = ordered[:MAX_BINS], ordered[MAX_BINS:]
    if rest:
        names = dict.fromkeys(name for _, levels in rest for name in levels)
        shown.append(
            (f"{len(rest)} other bins", {name: sum(of.get(name, 0) for _, of in rest) for name in names})
        )
    total = sum(sum(levels.values()) for _, levels in shown) or 1
    levels_of_all = list(dict.fromkeys(name for _, levels in shown for name in levels))
    tiles, x = [], 0.0
    for bin_name, levels in shown:
        of_bin = sum(levels.values())
        width, y = WIDTH * of_bin / total, 0.0
        for name, size in levels.items():
            height = HEIGHT * size / of_bin if of_bin else 0.0
            colour = _PALE[levels_of_all.index(name) % len(_PALE)]
            tiles.append(Tile(x, y, width, height, colour, f"{bin_name} {name}", size))
            y += height
        x += width
    return tiles
