"""Dots over layers: a small dot a head or channel, a line with large dots for the means of each panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pipelines.pictures.drawable_text import drawable, shortened
from pipelines.pictures.run_colours import colour_of

_MOST_DOTS = 400
"""Of a layer with thousands of channels so many are drawn, evenly spread over their sorted values."""
_LETTERS = 40
_TICKS = 24


def draw_dots(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    layers: Sequence[str],
    units: Mapping[str, str],
    x_label: str,
    limits: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """A row of axes for each quantity, a column for each panel, with common axes in a row.

    Args:
        panels: title -> quantity -> values of each layer.
        layers: their names.
        units: quantity -> label of its axis, with its unit.
        limits: quantity -> upper limit of each layer, drawn as a grey line.
    """
    width = min(9.0, 2.6 + 0.16 * len(layers))
    figure = Figure(
        figsize=(max(4.0, width) * len(panels) + 0.4, 2.5 * len(units) + 0.4), layout="constrained"
    )
    axes = figure.subplots(len(units), len(panels), squeeze=False, sharex=True, sharey="row")
    for column, (title, found) in enumerate(panels.items()):
        letter = f"({chr(ord('a') + column)}) " if len(panels) > 1 else ""
        name = letter + drawable(shortened(title, _LETTERS))
        axes[0][column].set_title(name, fontsize=10, parse_math=False)
        for row, (quantity, label) in enumerate(units.items()):
            axis = axes[row][column]
            x = np.arange(1, len(layers) + 1)
            for place, values in zip(x, found[quantity], strict=True):
                dots = _spread(values)
                axis.plot([place] * len(dots), dots, ".", color="0.6", markersize=3, zorder=1)
            means = [float(np.mean(values)) for values in found[quantity]]
            axis.plot(x, means, "o-", color=colour_of(column), markersize=5, zorder=3)
            if limits and quantity in limits:
                axis.plot(x, limits[quantity], "_", color="0.25", markersize=7, zorder=2)
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel(label, fontsize=9)
        step = -(-len(layers) // _TICKS)
        axes[-1][column].set_xticks(x[::step], list(layers)[::step], rotation=90, fontsize=8)
        axes[-1][column].set_xlabel(x_label)
    for axis in axes[:, 0]:  # once all panels of a row are drawn: fixed limits end scaling
        axis.set_ylim(0, axis.get_ylim()[1])
    return figure


def _spread(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    if len(ordered) <= _MOST_DOTS:
        return ordered
    return [ordered[int(at)] for at in np.linspace(0, len(ordered) - 1, _MOST_DOTS)]
