"""Plot of a run's loss and score over its steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.runs.metrics_csv import read_metrics
from pipelines.tasks.info.contract import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SMOOTHED_POINTS = 100


def draw_curves(metrics: Path, picture: Path, score: Score) -> None:
    """Draws the loss and, where it was measured, the column of `score` of `metrics` (metrics.csv) into
    `picture` (PNG)."""
    # Late: matplotlib takes a second to load, and is needed only at the end of a run.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rows = read_metrics(metrics)
    losses = [(int(row["step"]), float(row["loss"])) for row in rows if "loss" in row]
    scores = [(int(row["step"]), score.factor * float(row[score.name])) for row in rows if score.name in row]
    figure = curves_figure(losses, scores, score)
    FigureCanvasAgg(figure)
    figure.savefig(picture, dpi=120)


def curves_figure(
    losses: Sequence[tuple[int, float]], scores: Sequence[tuple[int, float]], score: Score
) -> Figure:
    """Loss on the left axis, score in its unit on the right one, the legend above both."""
    # Late: matplotlib takes a second to load, and is needed only at the end of a run.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="optimiser step", ylabel="training loss")
    axes.grid(alpha=0.3)
    if losses:
        steps, values = zip(*losses, strict=True)
        axes.plot(steps, values, color="tab:blue", alpha=0.3)
        axes.plot(steps, _smoothed(np.array(values)), color="tab:blue", label="loss, smoothed")
    if scores:
        right = axes.twinx()
        right.set_ylabel(f"{score.name}, {score.unit}")
        right.plot(
            *zip(*scores, strict=True), color="tab:orange", linestyle="--", marker="o", label=score.name
        )
        right.set_ylim(bottom=0)
    if losses or scores:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)  # over no point of either line
    return figure


def _smoothed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A running mean over a hundredth of the points, shorter at the start."""
    width = max(1, len(values) // _SMOOTHED_POINTS)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    start = np.maximum(0, np.arange(1, len(sums)) - width)
    smoothed: npt.NDArray[np.float64] = (sums[1:] - sums[start]) / (np.arange(1, len(sums)) - start)
    return smoothed
