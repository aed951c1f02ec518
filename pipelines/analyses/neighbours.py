"""Nearest patches of other records by cosine, with the query patch outlined.

Letters in array names: C channels, y and x cells, M cells of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pipelines.analyses.shown_features import FeatureSample, ShownFeatures, shown_features
from pipelines.analyses.written import Analysis
from pipelines.config.analyses import AnalyseConfig
from pipelines.errors import UsageError
from pipelines.pictures.drawable_text import drawable, shortened

USUAL_ROWS, USUAL_QUERIES, NEIGHBOURS = 64, 6, 5
_CELL_INCHES = 1.6
_LETTERS = 18
_GREY = np.full((2, 2, 3), 235, np.uint8)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The cell of a record that is most like the query's."""

    place: int
    """Of the view in the sample."""
    cell_yx: tuple[int, int]
    cosine: float


def neighbours(config: AnalyseConfig) -> Analysis:
    """For the middle patch of each query, or KEY@ROWxCOLUMN, the best patch of each of the five nearest
    records; views of one record are never its own neighbours.

    Raises UsageError for an unknown key or cell, or a sample of one record.
    """
    asked = [_parsed(text) for text in config.query]
    sample = shown_features(config, config.rows or USUAL_ROWS, [key for key, _ in asked])
    if len(sample.views) < 2:
        raise UsageError(f"{sample.name}: neighbours need two records or more, found {len(sample.views)}")
    level = list(sample.strides_px)[-1]
    maps = [view.maps[level] for view in sample.views]
    queries = [
        (place, _cell(config.query[place] if asked else "", asked[place][1] if asked else None, maps[place]))
        for place in range(len(asked) or min(USUAL_QUERIES, len(maps)))
    ]
    cells = sum(x[0].size for x in maps)
    print(f"cost: {len(queries) * cells * len(maps[0]) / 1e9:.3g} G multiply-adds over {len(maps)} records")
    found = [nearest(maps, place, cell) for place, cell in queries]
    top = [each[0].cosine for each in found]
    return Analysis(
        name=sample.name,
        content={
            "kind": "neighbours",
            "of": sample.identity,
            "level": level,
            "stride_px": sample.strides_px[level],
            "rows": [[view.key, view.view] for view in sample.views],
            "queries": [
                {
                    "key": sample.views[place].key,
                    "cell": list(cell),
                    "neighbours": [
                        {"key": sample.views[n.place].key, "cell": list(n.cell_yx), "cosine": n.cosine}
                        for n in each
                    ],
                }
                for (place, cell), each in zip(queries, found, strict=True)
            ],
            "dtype": "float64",
        },
        table=[
            {
                "query": sample.views[place].key,
                "query_cell": f"{cell[0]},{cell[1]}",
                "rank": rank,
                "key": sample.views[n.place].key,
                "cell": f"{n.cell_yx[0]},{n.cell_yx[1]}",
                "cosine": f"{n.cosine:.6f}",
            }
            for (place, cell), each in zip(queries, found, strict=True)
            for rank, n in enumerate(each, start=1)
        ],
        figure=_draw(sample, level, queries, found),
        sentence=f"nearest patches of {len(queries)} queries among {len(maps)} records in {level}: "
        f"cosine {min(top):.3f} to {max(top):.3f}",
    )


def nearest(
    maps_NCyx: list[npt.NDArray[np.float32]], place: int, cell_yx: tuple[int, int], count: int = NEIGHBOURS
) -> list[Neighbour]:
    """The most similar cell of each other map, the best maps first; maps are of different records."""
    query_C = _unit(maps_NCyx[place])[:, cell_yx[0], cell_yx[1]]
    found = []
    for other, x_Cyx in enumerate(maps_NCyx):
        if other != place:
            cosine_yx = np.einsum("c,cyx->yx", query_C, _unit(x_Cyx))
            best = np.unravel_index(cosine_yx.argmax(), cosine_yx.shape)
            found.append(Neighbour(other, (int(best[0]), int(best[1])), float(cosine_yx[best])))
    return sorted(found, key=lambda each: -each.cosine)[:count]


def _unit(x_Cyx: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    x = x_Cyx.astype(np.float64)
    norm = np.sqrt((x**2).sum(0, keepdims=True))
    unit: npt.NDArray[np.float64] = x / np.where(norm > 0, norm, 1.0)
    return unit


def _parsed(text: str) -> tuple[str, str | None]:
    """Key and cell of KEY or KEY@ROWxCOLUMN."""
    key, at, cell = text.rpartition("@")
    return (key, cell) if at else (text, None)


def _cell(text: str, cell: str | None, x_Cyx: npt.NDArray[np.float32]) -> tuple[int, int]:
    height, width = x_Cyx.shape[1:]
    if cell is None:
        return height // 2, width // 2
    numbers = cell.split("x")
    if len(numbers) != 2 or not all(part.isdigit() for part in numbers):
        raise UsageError(f"--query {text}: expected KEY or KEY@ROWxCOLUMN of a cell, such as {text}@3x5")
    row, column = map(int, numbers)
    if row >= height or column >= width:
        raise UsageError(f"--query {text}: the map has {height}x{width} cells, counted from 0")
    return row, column


def _draw(
    sample: FeatureSample,
    level: str,
    queries: list[tuple[int, tuple[int, int]]],
    found: list[list[Neighbour]],
) -> Figure:
    columns = 1 + max(map(len, found))
    figure = Figure(
        figsize=(_CELL_INCHES * columns + 0.2, (_CELL_INCHES + 0.2) * len(queries) + 0.3),
        layout="constrained",
    )
    axes = figure.subplots(len(queries), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    stride_px = sample.strides_px[level]
    for row, ((place, cell), each) in enumerate(zip(queries, found, strict=True)):
        _show(axes[row][0], sample.views[place], cell, stride_px, f"query {sample.views[place].key}")
        for column, n in enumerate(each, start=1):
            view = sample.views[n.place]
            _show(axes[row][column], view, n.cell_yx, stride_px, f"{n.cosine:.2f}  {view.key}")
    return figure


def _show(axis: Any, view: ShownFeatures, cell: tuple[int, int], stride_px: float, title: str) -> None:
    shown = _GREY if view.picture_HW3 is None else view.picture_HW3
    axis.imshow(shown, extent=(0, view.hw[1], view.hw[0], 0))
    for colour, width in (("black", 3.0), ("white", 1.2)):  # seen on any image
        corner = (cell[1] * stride_px, cell[0] * stride_px)
        axis.add_patch(Rectangle(corner, stride_px, stride_px, fill=False, edgecolor=colour, linewidth=width))
    text = drawable(shortened(title, _LETTERS))
    axis.set_title(text, fontsize=7, parse_math=False, pad=2)
