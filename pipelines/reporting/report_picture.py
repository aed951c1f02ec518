"""Plot of score over trainable parameters, like figure 1 of Lin et al., NeurIPS 2022."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox

from pipelines.pictures.drawable_text import drawable, shortened
from pipelines.reporting.report_rows import ReportRow
from pipelines.tasks import task_info

_COLUMNS = 2
"""Panels side by side."""
_PANEL_INCHES = (7.0, 4.2)
"""Of a panel without its legend: width, and height with title and labels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.9, 0.3, 0.5, 0.7
"""Inches around the axes of a panel, above its legend."""
_LINE_INCHES = 0.17
"""Height of a line of a legend."""
_LEGEND_LETTERS, _LEGEND_LINES = 84, 3
_NAME_LETTERS = 24
_STYLES = (
    ("tab:blue", "o"),
    ("tab:orange", "s"),
    ("tab:green", "^"),
    ("tab:purple", "D"),
    ("tab:brown", "v"),
)
"""Colour and marker of each line, so that lines differ in grey, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    """One data set: its rows with a score, and the texts of its legend."""

    dataset: str
    views: str
    score: str
    unit: str
    lines: Mapping[str, Sequence[ReportRow]]
    paper: Mapping[str, Sequence[tuple[float, float]]]
    """Of a backbone and pretraining: the place along the axis, and score."""
    over_share: bool = False
    """Whether the axis is the share of the training records, in place of the head's parameters."""

    @property
    def labels(self) -> list[str]:
        return [*map(wrapped, self.lines), *(wrapped(f"paper, {name}") for name in self.paper)]

    @property
    def legend_inches(self) -> float:
        return _LINE_INCHES * (sum(label.count("\n") + 1 for label in self.labels) + 1)


def draw_report(rows: Sequence[ReportRow], picture: Path) -> bool:
    """Draws one panel a data set into `picture` (PNG); whether there was a score to draw.

    A point is a row's first score over the trainable parameters of its head, a bar its deviation over seeds;
    rows of one backbone, weights and store are joined. Hollow points are the paper's frozen results at the
    parameters of our head of that name, as it prints none. Where runs saw different shares of the records,
    another panel shows their scores over the share.
    """
    figure = report_figure(rows)
    if figure is not None:
        figure.savefig(picture, dpi=120)
    return figure is not None


def report_figure(rows: Sequence[ReportRow]) -> Figure | None:
    """The picture of `draw_report`; None without a score. Sizes are inches: no text leaves its panel."""
    scored = sorted((row for row in rows if row.scores), key=lambda row: row.source[0])
    panels = []
    for name, of in groupby(scored, key=lambda row: row.source[0]):
        rows_of = list(of)
        panels.append(_panel(name, rows_of))
        if len({row.first.share for row in rows_of}) > 1:
            panels.append(_share_panel(name, rows_of))
    if not panels:
        return None
    columns = min(_COLUMNS, len(panels))
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [_PANEL_INCHES[1] + max(panel.legend_inches for panel in line) for line in lines]
    width, height = columns * _PANEL_INCHES[0], sum(heights)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    top = height
    for line, line_height in zip(lines, heights, strict=True):
        for column, panel in enumerate(line):
            box = (
                (column * _PANEL_INCHES[0] + _LEFT) / width,
                (top - _PANEL_INCHES[1] + _BOTTOM) / height,
                (_PANEL_INCHES[0] - _LEFT - _RIGHT) / width,
                (_PANEL_INCHES[1] - _TOP - _BOTTOM) / height,
            )
            _draw_panel(figure.add_axes(box), panel)
        top -= line_height
    return figure


def _panel(dataset: str, rows: Sequence[ReportRow]) -> _Panel:
    views, score = next(iter(rows[0].scores))
    lines: dict[str, list[ReportRow]] = {}
    paper: dict[str, set[tuple[float, float]]] = {}
    for row in rows:
        if (views, score) not in row.scores:
            continue
        run = row.first
        unfinished = "" if row.is_finished else ", not finished"
        name = (
            f"{run.record.model} {row.weights.name}, {run.record.codec or 'no codec'} {run.store}{unfinished}"
        )
        lines.setdefault(name, []).append(row)
        printed = row.paper.row
        if printed is not None and score in printed.frozen.get(views, {}):
            point = (_millions(row), printed.frozen[views][score])
            paper.setdefault(f"{printed.model} {printed.pretraining}, frozen", set()).add(point)
    return _Panel(
        dataset=dataset,
        views=views,
        score=score,
        unit=task_info(rows[0].first.record.task).score(score).unit,
        lines=lines,
        paper={name: sorted(points) for name, points in sorted(paper.items())},
    )


def _share_panel(dataset: str, rows: Sequence[ReportRow]) -> _Panel:
    """The first score over the share of the training records, a line for each head and backbone."""
    views, score = next(iter(rows[0].scores))
    info = task_info(rows[0].first.record.task).score(score)
    lines: dict[str, list[ReportRow]] = {}
    paper: dict[str, set[tuple[float, float]]] = {}
    for row in sorted(rows, key=lambda row: row.first.share):
        if (views, score) not in row.scores:
            continue
        lines.setdefault(f"{row.head}, {row.first.record.model} {row.weights.name}", []).append(row)
        for printed in row.paper.rows:
            both = (("frozen", printed.frozen), ("fine-tuned", printed.fine_tuned))
            for kind, value in ((kind, of.get(views, {}).get(score)) for kind, of in both):
                if value is not None:
                    name = f"{printed.describe().partition(',')[0]}, {printed.pretraining}, {kind}"
                    paper.setdefault(name, set()).add((100 * printed.share, value))
    return _Panel(
        dataset=dataset,
        views=views,
        score=score,
        unit=info.unit,
        lines=lines,
        paper={name: sorted(points) for name, points in sorted(paper.items())},
        over_share=True,
    )


def _place(panel: _Panel, row: ReportRow) -> float:
    return 100 * row.first.share if panel.over_share else _millions(row)


def _draw_panel(axes: Any, panel: _Panel) -> None:
    plain: dict[str, Any] = {"parse_math": False}
    axes.set_title(drawable(shortened(panel.dataset, 60)), **plain)
    axes.set_xlabel(
        "share of the training records, %" if panel.over_share else "trainable parameters, millions"
    )
    axes.set_ylabel(drawable(shortened(f"{panel.score} ({panel.views}), {panel.unit}", 44)), **plain)
    handles, points, texts = [], [], []
    for number, of in enumerate(panel.lines.values()):
        colour, marker = _STYLES[number % len(_STYLES)]
        spreads = [row.scores[panel.views, panel.score] for row in of]
        x, y = [_place(panel, row) for row in of], [spread.mean for spread in spreads]
        bars = [spread.deviation or 0.0 for spread in spreads]
        handles.append(axes.errorbar(x, y, yerr=bars, color=colour, marker=marker, capsize=3))
        for sign in (-1, 1):
            points += [(at, mean + sign * bar) for at, mean, bar in zip(x, y, bars, strict=True)]
        texts += [(row.head, at, mean) for row, at, mean in zip(of, x, y, strict=True)]
    for number, of_paper in enumerate(panel.paper.values()):
        grey = ("0.4", "0.6", "0.2")[number % 3]
        style = {"color": grey, "marker": "o", "markerfacecolor": "none", "linestyle": "--"}
        handles += axes.plot(*zip(*of_paper, strict=True), **style)
        points += of_paper
    _set_limits(axes, points)
    # Under the axes and as tall as `legend_inches`, so that it covers no point and no other panel.
    legend = axes.legend(
        handles, panel.labels, fontsize="small", loc="upper left", borderaxespad=0, frameon=False,
        bbox_to_anchor=(-0.12, -(_BOTTOM - 0.1) / (_PANEL_INCHES[1] - _TOP - _BOTTOM)),
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    _write_names(axes, texts)


def _set_limits(axes: Any, points: Sequence[tuple[float, float]]) -> None:
    """Room around the points, with a scale that has marks even where they are one."""
    x, y = zip(*points, strict=True)
    axes.set_xscale("log")
    axes.set_xlim(min(x) / 1.6, max(x) * 1.6)
    room = max(0.12 * (max(y) - min(y)), 0.02 * max(map(abs, y)), 1e-6)
    axes.set_ylim(min(y) - room, max(y) + room)
    few = max(x) / min(x) < 10
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if few else (1, 3)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)


def _write_names(axes: Any, texts: Sequence[tuple[str, float, float]]) -> None:
    """Each head's name beside its point, inside the axes and, where there is room, over nothing else."""
    renderer = axes.figure.canvas.get_renderer()
    inside = axes.get_window_extent(renderer)
    marks = [_around(axes.transData.transform((x, y)), 4) for _, x, y in texts]
    taken: list[Bbox] = []
    for number, (name, x, y) in enumerate(texts):
        text = axes.annotate(
            drawable(shortened(name, _NAME_LETTERS)), (x, y), xytext=(0, 0), textcoords="offset points",
            fontsize="small", parse_math=False,
        )  # fmt: skip
        others = [*taken, *marks[:number], *marks[number + 1 :]]
        costs = {place: _covered(_moved(text, place, renderer), inside, others) for place in _places()}
        taken.append(_moved(text, min(costs, key=costs.__getitem__), renderer))


def _places() -> Iterator[tuple[float, float, str]]:
    """Offsets in points, near ones first, and which side of the text is at its point."""
    for distance, rise, side in product((5, 14, 24, 36, 50, 66), (1, -1), ("left", "right")):
        yield (5 if side == "left" else -5), rise * distance - (0 if rise > 0 else 6), side


def _moved(text: Any, place: tuple[float, float, str], renderer: Any) -> Bbox:
    x, y, side = place
    text.set_horizontalalignment(side)
    text.xyann = (x, y)
    found: Bbox = text.get_window_extent(renderer)
    return found


def _covered(box: Bbox, inside: Bbox, others: Sequence[Bbox]) -> float:
    """How bad a place is: the area outside the axes or over names and points."""
    kept = Bbox.intersection(box, inside)
    outside = _area(box) - (_area(kept) if kept is not None else 0.0)
    over = [Bbox.intersection(box, other) for other in others]
    return 4 * outside + sum(_area(each) for each in over if each is not None)


def _area(box: Bbox) -> float:
    return float(abs(box.width * box.height))


def _around(point: Any, px: float) -> Bbox:
    return Bbox([[point[0] - px, point[1] - px], [point[0] + px, point[1] + px]])


def wrapped(text: str) -> str:
    """A legend's text in lines of its width; the middle of a longer one is left out."""
    text = drawable(shortened(text, _LEGEND_LETTERS * _LEGEND_LINES - 20))
    return "\n".join(textwrap.wrap(text, _LEGEND_LETTERS)) or " "


def _millions(row: ReportRow) -> float:
    return row.first.parameters / 1e6
