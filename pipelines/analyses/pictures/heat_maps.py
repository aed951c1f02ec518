"""Heat maps of similarities: a panel a matrix, all with one scale from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipelines.pictures.drawable_text import drawable, shortened

NUMBERED = 12
"""Matrices up to so many rows and columns have a number in each cell."""
_TICKS = 30
_LETTERS = 24
_TITLE_LETTERS = 44
_PANELS_A_ROW = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMap:
    """One matrix."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    row_label: str = ""
    column_label: str = ""
    borders: tuple[Sequence[int], Sequence[int]] = ((), ())
    """Before which rows, and columns, a white line is drawn, as between stages."""


def draw_heat_maps(maps: Sequence[HeatMap], unit: str) -> Figure:
    """Panels side by side, the first row of each at the bottom, as in the papers; values are cut to 0..1."""
    across = 2 if len(maps) == 4 else min(len(maps), _PANELS_A_ROW)
    down = -(-len(maps) // across)
    side = max(3.4, min(7.0, 0.42 * max(max(len(m.rows), len(m.columns)) for m in maps)))
    figure = Figure(figsize=(side * across + 1.0, (side + 0.5) * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for axis in axes.flat[len(maps) :]:
        axis.set_visible(False)
    for axis, each in zip(axes.flat, maps, strict=False):
        image = _draw(axis, each)
    figure.colorbar(image, ax=axes, label=unit, shrink=0.85)
    return figure


def _draw(axis: Any, each: HeatMap) -> Any:
    values = np.array([[np.nan if v is None else v for v in row] for row in each.values], float)
    image = axis.imshow(np.clip(values, 0, 1), origin="lower", cmap="magma", vmin=0, vmax=1)
    axis.set_facecolor("0.7")  # of pairs without a value
    axis.set_title(drawable(shortened(each.title, _TITLE_LETTERS)), fontsize=10, parse_math=False)
    _ticks(axis.xaxis, each.columns, rotation=90)
    _ticks(axis.yaxis, each.rows, rotation=0)
    axis.set_xlabel(drawable(shortened(each.column_label, _TITLE_LETTERS)), parse_math=False)
    axis.set_ylabel(drawable(shortened(each.row_label, _TITLE_LETTERS)), parse_math=False)
    for place in each.borders[0]:
        axis.axhline(place - 0.5, color="white", linewidth=1.2)
    for place in each.borders[1]:
        axis.axvline(place - 0.5, color="white", linewidth=1.2)
    if max(values.shape) <= NUMBERED:
        for (row, column), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else f"{value:.2f}"  # noqa: RUF001
            ink = "black" if value > 0.6 or np.isnan(value) else "white"
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    return image


def _ticks(axis: Any, names: Sequence[str], rotation: int) -> None:
    step = -(-len(names) // _TICKS)
    places = range(0, len(names), step)
    axis.set_ticks(places, [drawable(shortened(names[at], _LETTERS)) for at in places], parse_math=False)
    for label in axis.get_ticklabels():
        label.set(rotation=rotation, fontsize=8)


def stage_borders(names: Sequence[str]) -> list[int]:
    """Places of the names of a stage's first block: `s2.b1` after `s1.b2`.

    >>> stage_borders(["s1.b1", "s1.b2", "s2.b1"]), stage_borders(["p2", "p3"])
    ([2], [])
    """
    stages = [name.partition(".")[0] if "." in name else "" for name in names]
    return [at for at in range(1, len(stages)) if stages[at] != stages[at - 1]]
