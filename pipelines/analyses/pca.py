"""Features as colours beside their images: a row an image, a column a level."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from pipelines.analyses.components import component_colours
from pipelines.analyses.shown_features import FeatureSample, Pixels, shown_features
from pipelines.analyses.written import Analysis
from pipelines.config.analyses import AnalyseConfig
from pipelines.errors import UsageError
from pipelines.pictures.drawable_text import drawable, shortened

USUAL_ROWS = 16
_CELL_INCHES = 1.5
_LETTERS = 18
_MISSING = np.full((2, 2, 3), 235, np.uint8)


def pca(config: AnalyseConfig) -> Analysis:
    """Components 1 to 3 of each level, fitted over the cells of all images together.

    Raises UsageError for maps of several sizes with `remove_position`.
    """
    sample = shown_features(config, config.rows or USUAL_ROWS)
    if not sample.views:
        raise UsageError(f"{sample.name} has no image to show")
    cells = {level: sum(v.maps[level][0].size for v in sample.views) for level in sample.strides_px}
    products = sum(sum(v.maps[level].size * len(v.maps[level]) for v in sample.views) for level in cells)
    print(f"cost: {products / 1e9:.3g} G multiply-adds over {len(sample.views)} images")
    try:
        colours = {
            level: component_colours(
                [view.maps[level] for view in sample.views],
                foreground=config.foreground,
                remove_position=config.remove_position,
            )
            for level in sample.strides_px
        }
    except ValueError as error:
        raise UsageError(f"--remove-position: {error}") from None
    return Analysis(
        name=sample.name,
        content={
            "kind": "pca",
            "of": sample.identity,
            "rows": [[view.key, view.view] for view in sample.views],
            "cells": cells,
            "foreground": config.foreground,
            "remove_position": config.remove_position,
            "dtype": "float64",
        },
        table=[
            {
                "key": view.key,
                "view": view.view,
                "level": level,
                "y": y,
                "x": x,
                "red": r,
                "green": g,
                "blue": b,
            }
            for level, pictures in colours.items()
            for view, picture in zip(sample.views, pictures, strict=True)
            for (y, x), (r, g, b) in zip(
                np.ndindex(picture.shape[:2]), picture.reshape(-1, 3).tolist(), strict=True
            )
        ],
        figure=_draw(sample, colours),
        sentence=f"components of {len(sample.views)} images, "
        + ", ".join(f"{level} {count} cells" for level, count in cells.items()),
    )


def _draw(sample: FeatureSample, colours: dict[str, list[Pixels]]) -> Figure:
    """Images in two halves side by side where they are many, so that the picture fits a page."""
    halves = 2 if len(sample.views) > 4 else 1
    down = -(-len(sample.views) // halves)
    width = 1 + len(colours)
    figure = Figure(
        figsize=(_CELL_INCHES * width * halves + 0.3, _CELL_INCHES * down + 0.4), layout="constrained"
    )
    axes = figure.subplots(down, width * halves, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, view in enumerate(sample.views):
        row, first = number % down, number // down * width
        shown = _MISSING if view.picture_HW3 is None else view.picture_HW3
        axes[row][first].imshow(shown, extent=(0, view.hw[1], view.hw[0], 0))
        name = drawable(shortened(view.key, _LETTERS))
        axes[row][first].set_title(name, fontsize=6, parse_math=False, pad=2)
        for column, (level, pictures) in enumerate(colours.items(), start=1):
            axis = axes[row][first + column]
            axis.imshow(pictures[number], interpolation="nearest", extent=(0, view.hw[1], view.hw[0], 0))
            if row == 0:
                axis.set_title(f"{level}, {sample.strides_px[level]:g} px", fontsize=8, pad=2)
    return figure
