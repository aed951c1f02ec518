"""Charts of detection runs: precision over recall, and AP by size of objects, out of their evaluate.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.pages.charts import Chart, Line, bar_chart, line_chart
from stores.small_files import read_json

SIZES = {"small, below 32² px": "AP_small", "medium": "AP_medium", "large, above 96² px": "AP_large"}


def detection_charts(runs: Sequence[tuple[int, Path]]) -> Iterator[Chart]:
    """Of the runs that were evaluated on boxes; none where no run was.

    Args:
        runs: number on the page and folder of each.
    """
    found = [(run, figures) for run, folder in runs if (figures := _figures(folder))]
    for kind in ("box", "mask"):
        lines = [
            Line(run=run, x=recalls, y=values)
            for run, figures in found
            for recalls, values in [_curve((figures.get(f"{kind}_precision") or {}).get("0.50"))]
            if values
        ]
        if lines:
            yield line_chart(
                f"precision-{kind}", lines,
                x="recall, %", y=f"{kind} precision, %",
                caption="Precision over recall at IoU 0.50, the mean over classes.",
            )  # fmt: skip
        bars = {run: sizes for run, figures in found if (sizes := _by_size(figures.get(kind)))}
        if bars:
            caption = f"{kind} AP by size of objects."
            yield bar_chart(f"sizes-{kind}", list(SIZES), bars, x=f"{kind} AP, %", caption=caption)


def _by_size(numbers: Any) -> list[float | None] | None:
    """Per cent, in the order of SIZES; None where no object was annotated."""
    if not isinstance(numbers, dict):
        return None
    values = [None if (value := numbers.get(name)) is None else 100 * value for name in SIZES.values()]
    return values if any(value is not None for value in values) else None


def _figures(folder: Path) -> dict[str, Any]:
    path = folder / "evaluate.json"
    try:
        content = read_json(path) if path.is_file() else {}
    except ValueError:  # the table says so
        content = {}
    return content if isinstance(content.get("box"), dict) else {}


def _curve(values: object) -> tuple[list[float], list[float]]:
    if not isinstance(values, list) or len(values) < 2:
        return [], []
    known = [
        (100 * at / (len(values) - 1), 100 * value) for at, value in enumerate(values) if value is not None
    ]
    return [x for x, _ in known], [y for _, y in known]
