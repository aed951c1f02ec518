"""Charts of a page, drawn by matplotlib as SVG: lines, points and bars, one colour and dash for each run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipelines.pictures.drawable_text import drawable, shortened
from pipelines.pictures.run_colours import colour_of, dash_of, marker_of

_NAME_LETTERS = 28


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart."""

    svg: Markup
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Points of one run."""

    run: int
    """Its number on the page: it decides the colour, and check boxes hide it."""
    x: Sequence[float]
    y: Sequence[float]
    markers: bool = False
    label: str | None = None
    """Named in a legend above the axes; None: the page names runs itself."""


def line_chart(
    name: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    caption: str,
    log_x: bool = False,
    whole_x: bool = True,
) -> Chart:
    """Lines over a common axis.

    Args:
        name: unique on the page; it begins the ids inside the SVG.
        x, y: labels of the axes, with units.
        whole_x: ticks at whole numbers, as of steps.
    """
    figure, axes = _axes(x, y)
    for line in lines:
        (drawn,) = axes.plot(
            line.x, line.y,
            color=colour_of(line.run),
            linestyle=dash_of(line.run),
            marker=marker_of(line.run) if line.markers or len(line.x) == 1 else None,
            markersize=5,
            label=line.label or "_",
        )  # fmt: skip
        drawn.set_gid(f"{name}-run{line.run}")
    if log_x:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole_x))
    if any(line.label for line in lines):
        figure.legend(loc="outside upper left", ncols=len(lines), frameon=False)
    return Chart(_svg(figure, name), caption)


def bar_chart(
    name: str, classes: Sequence[str], bars: Mapping[int, Sequence[float | None]], *, x: str, caption: str
) -> Chart:
    """Horizontal bars, a group for each class and a bar in it for each run.

    Args:
        bars: number of the run -> a value for each class; None draws none.
        x: label of the axis, with its unit.
    """
    height = 0.8 / max(1, len(bars))
    figure = Figure(figsize=(8, 1.0 + len(classes) * max(0.22, 0.13 * len(bars))), layout="constrained")
    axes = figure.add_subplot(xlabel=x)
    for place, (run, values) in enumerate(bars.items()):
        at = [row + (place - (len(bars) - 1) / 2) * height for row in range(len(classes))]
        drawn = axes.barh(at, [value or 0.0 for value in values], height=height, color=colour_of(run))
        for number, bar in enumerate(drawn):
            bar.set_gid(f"{name}-{number}-run{run}")
    axes.set_yticks(range(len(classes)), [_label(text) for text in classes], parse_math=False)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    return Chart(_svg(figure, name), caption)


def _axes(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    axes.grid(alpha=0.3)
    return figure, axes


def _label(text: str) -> str:
    return drawable(shortened(text, _NAME_LETTERS))


def _svg(figure: Figure, name: str) -> Markup:
    """The figure as an element of a page: letters as text, ids of its own, no address of anything outside."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        written = StringIO()
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r' (xmlns|xmlns:xlink)="[^"]*"', "", text)
    text = re.sub(
        r'id="(figure|axes|patch|line2d|text|matplotlib\.axis|xtick|ytick)_(\d+)"',
        rf'id="{name}-\1_\2"',
        text,
    )
    return Markup(text)
