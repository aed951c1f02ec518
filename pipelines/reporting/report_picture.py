"""Plot of score over trainable parameters, like figure 1 of Lin et al., NeurIPS 2022."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.reporting.report_rows import ReportRow
from pipelines.tasks import task_info


def draw_report(rows: Sequence[ReportRow], picture: Path) -> bool:
    """Draws one panel a data set into `picture` (PNG); whether there was a score to draw.

    A point is a row's first score over the trainable parameters of its head, a bar its deviation over seeds;
    rows of one backbone and store are joined. Hollow points are the paper's frozen results at the parameters
    of our head of that name, as it prints none.
    """
    scored = [row for row in rows if row.scores]
    panels = {name: list(of) for name, of in groupby(scored, key=lambda row: row.source[0])}
    if not panels:
        return False
    figure = Figure(figsize=(6.4 * len(panels), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (dataset, of) in enumerate(panels.items()):
        _draw_panel(figure.add_subplot(1, len(panels), number + 1), dataset, of)
    figure.savefig(picture, dpi=120)
    return True


def _draw_panel(axes: Any, dataset: str, rows: Sequence[ReportRow]) -> None:
    views, score = next(iter(rows[0].scores))
    axes.set(
        title=dataset,
        xlabel="trainable parameters, millions",
        ylabel=f"{score} ({views}), {task_info(rows[0].first.record.task).score(score).unit}",
        xscale="log",
    )
    axes.grid(alpha=0.3, which="both")
    lines: dict[str, list[ReportRow]] = {}
    for row in rows:
        if (views, score) in row.scores:
            lines.setdefault(
                f"{row.source[1]}, {row.first.record.codec or 'online'} {row.first.store}", []
            ).append(row)
    label = {"textcoords": "offset points", "fontsize": "small"}
    for line, of in lines.items():
        spreads = [row.scores[views, score] for row in of]
        axes.errorbar(
            [_millions(row) for row in of],
            [spread.mean for spread in spreads],
            yerr=[spread.deviation or 0.0 for spread in spreads],
            marker="o", capsize=3, label=line,
        )  # fmt: skip
        for row, spread in zip(of, spreads, strict=True):
            axes.annotate(row.head, (_millions(row), spread.mean), xytext=(4, 4), **label)
    _draw_paper(axes, rows, views, score)
    axes.legend(fontsize="small")


def _draw_paper(axes: Any, rows: Sequence[ReportRow], views: str, score: str) -> None:
    points = {
        (row.paper.model, _millions(row), row.paper.frozen[views][score])
        for row in rows
        if row.paper and score in row.paper.frozen.get(views, {})
    }
    for model in sorted({model for model, *_ in points}):
        line = sorted((x, y) for of, x, y in points if of == model)
        axes.plot(
            *zip(*line, strict=True), "--", color="tab:gray", marker="o", markerfacecolor="none",
            label=f"paper, {model}, frozen",
        )  # fmt: skip


def _millions(row: ReportRow) -> float:
    return row.first.parameters / 1e6
