"""Plot of a run's loss and score over its steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.runs.metrics_csv import read_metrics

_SMOOTHED_POINTS = 100


def draw_curves(metrics: Path, picture: Path, score: str) -> None:
    """Draws the loss and, where it was measured, the column `score` of `metrics` (metrics.csv) into `picture`
    (PNG)."""
    # Late: matplotlib takes a second to load, and is needed only at the end of a run.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    losses = [(int(row["step"]), float(row["loss"])) for row in rows if "loss" in row]
    scores = [(int(row["step"]), 100 * float(row[score])) for row in rows if score in row]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    if losses:
        steps, values = zip(*losses, strict=True)
        axes.plot(steps, values, color="tab:blue", alpha=0.3)
        axes.plot(steps, _smoothed(np.array(values)), color="tab:blue", label="loss")
    if scores:
        right = axes.twinx()
        right.set_ylabel(f"{score}, %")
        right.plot(*zip(*scores, strict=True), color="tab:orange", marker="o", label=score)
        right.set_ylim(bottom=0)
        right.legend(loc="upper right")
    axes.legend(loc="upper left")
    figure.savefig(picture, dpi=120)


def _smoothed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A running mean over a hundredth of the points, shorter at the start."""
    width = max(1, len(values) // _SMOOTHED_POINTS)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    start = np.maximum(0, np.arange(1, len(sums)) - width)
    smoothed: npt.NDArray[np.float64] = (sums[1:] - sums[start]) / (np.arange(1, len(sums)) - start)
    return smoothed
