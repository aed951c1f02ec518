"""Page of runs: their table beside the paper's rows, curves, costs, classes, differing settings, pictures."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pipelines.pages.charts import Chart, Line, bar_chart, line_chart
from pipelines.pages.detection_charts import detection_charts
from pipelines.pages.embedded_pictures import embedded
from pipelines.pages.page import MAX_BYTES, write_page
from pipelines.pages.tables import Cell, Column, Table, number
from pipelines.pictures.run_colours import colour_of
from pipelines.reporting.report_rows import ReportRow
from pipelines.reporting.report_table import has_paper, paper_cell, weights_cell
from pipelines.reporting.run_summary import RunFigures
from pipelines.runs.metrics_csv import read_metrics
from pipelines.runs.run_folder import CURVES, METRICS
from pipelines.tasks import task_info
from pipelines.units import gigabytes

MAX_CLASSES = 40
"""Classes of a bar chart: those in which the runs differ most, or the worst of a single run."""
MAX_POINTS = 400
"""Of a curve; more are thinned out."""
_PICTURE_BYTES = MAX_BYTES // 2
_NOT_SETTINGS = ("run", "resume", "take_over", "json", "debug", "store", "val_store", "stores")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownRun:
    """A run as the page names it."""

    name: str
    colour: str
    figures: RunFigures


def write_runs_page(rows: Sequence[ReportRow], path: Path) -> int:
    """Writes the page of a report's rows, from what stands in the run folders. Returns its bytes."""
    figures = [run for row in rows for run in row.runs]
    names = _names(figures)
    runs = [
        ShownRun(name=name, colour=colour_of(place), figures=run)
        for place, (name, run) in enumerate(zip(names, figures, strict=True))
    ]
    pictures, left = embedded(list(_pictures(runs)), _PICTURE_BYTES)
    sources = list(dict.fromkeys(", ".join(row.source) for row in rows))
    return write_page(
        path,
        "runs.html",
        title=f"Permafrost runs: {', '.join(dict.fromkeys(row.source[0] for row in rows))}",
        runs=runs,
        sources=sources,
        tables=[_table(list(of)) for _, of in groupby(rows, key=lambda row: row.source)],
        charts=[
            *_curves(runs),
            *_costs(runs),
            *detection_charts([(place, run.figures.folder) for place, run in enumerate(runs)]),
        ],
        class_charts=list(_classes(runs)),
        differences=_differences(runs),
        pictures=pictures,
        pictures_left=left,
    )


def _names(runs: Sequence[RunFigures]) -> list[str]:
    """Head and folder of each; where heads differ, the head is enough."""
    heads = [run.record.head for run in runs]
    if len(set(heads)) == len(heads):
        return heads
    return [f"{head} ({run.folder.name})" for head, run in zip(heads, runs, strict=True)]


def _table(rows: Sequence[ReportRow]) -> Table:
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.scores))
    columns = [Column("head"), Column("weights"), Column("parameters", True), Column("steps")]
    columns += [Column(f"{name} ({views})", True) for views, name in kinds]
    columns += [Column("step", True), Column("peak memory", True), Column("hours", True)]
    columns += [Column("store"), Column("run")]
    with_paper = has_paper(rows)
    columns += [Column("paper, frozen (fine-tuned)")] * with_paper
    return Table(
        name=", ".join(rows[0].source),
        columns=columns,
        rows=[[*_cells(row, kinds), *[Cell(paper_cell(row))] * with_paper] for row in rows],
        notes=list(dict.fromkeys(note for row in rows for note in row.notes)),
    )


def _cells(row: ReportRow, kinds: Sequence[tuple[str, str]]) -> list[Cell]:
    run, milliseconds = row.first, None if row.step_seconds is None else 1e3 * row.step_seconds
    settings = f" ({row.settings})" if row.settings else ""
    seeds = f" ×{len(row.runs)} seeds" if len(row.runs) > 1 else ""  # noqa: RUF001
    scores = [row.scores.get(kind) for kind in kinds]
    peak = row.peak_bytes
    return [
        Cell(f"{row.head}{settings}{seeds}"),
        Cell(weights_cell(row)),
        number(run.parameters / 1e6, "{:.2f} M"),
        Cell(row.steps),
        *(Cell("–") if score is None else Cell(str(score), score.mean) for score in scores),  # noqa: RUF001
        number(milliseconds, "{:.0f} ms"),
        Cell("–") if peak is None else Cell(gigabytes(peak), peak),  # noqa: RUF001
        number(row.hours, "{:.2f}"),
        Cell(f"{run.store} {run.record.codec or ''}".rstrip()),
        Cell(row.folders),
    ]


def _curves(runs: Sequence[ShownRun]) -> Iterator[Chart]:
    logs = [read_metrics(run.figures.folder / METRICS) for run in runs]
    losses = [_line(place, log, "loss", 1.0) for place, log in enumerate(logs)]
    if any(line.x for line in losses):
        yield line_chart(
            "loss", [line for line in losses if line.x], x="optimiser step", y="training loss",
            caption="Loss of the head at its logged steps.",
        )  # fmt: skip
    for task, of in groupby(enumerate(runs), key=lambda each: each[1].figures.record.task):
        info = task_info(task)
        score = info.score(info.main_score)
        lines = [_line(place, logs[place], score.name, score.factor, markers=True) for place, _ in of]
        if any(line.x for line in lines):
            yield line_chart(
                f"score-{task}", [line for line in lines if line.x],
                x="optimiser step", y=f"{score.name}, {score.unit}",
                caption="Score of the validations while training.",
            )  # fmt: skip


def _line(
    run: int, log: Sequence[Mapping[str, str]], column: str, factor: float, markers: bool = False
) -> Line:
    points = [(int(row["step"]), factor * float(row[column])) for row in log if column in row]
    points = points[:: max(1, len(points) // MAX_POINTS)]
    return Line(run=run, x=[x for x, _ in points], y=[y for _, y in points], markers=markers)


def _costs(runs: Sequence[ShownRun]) -> Iterator[Chart]:
    """The first score of each run over what it costs."""
    scored = [(place, *point) for place, run in enumerate(runs) if (point := _first_score(run)) is not None]
    label = scored[0][2] if scored else ""
    scored = [each for each in scored if each[2] == label]  # one unit on an axis
    if len(scored) < 2:
        return
    axes: dict[str, dict[int, float | None]] = {
        "trainable parameters, millions": {
            place: runs[place].figures.parameters / 1e6 for place, _, _ in scored
        },
        "hours of training": {
            place: costs.seconds / 3600 if (costs := runs[place].figures.costs) else None
            for place, _, _ in scored
        },
        "features read while training, GB": {place: _gigabytes_read(runs[place]) for place, _, _ in scored},
    }
    for number_of_chart, (x, of) in enumerate(axes.items()):
        lines = [
            Line(run=place, x=[value], y=[score], markers=True)
            for place, score, _ in scored
            if (value := of[place]) is not None
        ]
        if lines:
            yield line_chart(
                f"cost{number_of_chart}", lines, x=x, y=label, caption=f"Score over {x}.", log_x=True
            )


def _gigabytes_read(run: ShownRun) -> float | None:
    """As stored: rows of a step, times steps."""
    costs = run.figures.costs
    if costs is None or not costs.row_bytes or not run.figures.steps_done:
        return None
    return costs.row_bytes * costs.batch_size * run.figures.steps_done / 1e9


def _first_score(run: ShownRun) -> tuple[float, str] | None:
    info = task_info(run.figures.record.task)
    for views, scores in run.figures.scores.items():
        for name, value in scores.items():
            score = info.score(name)
            return score.factor * value, f"{name} ({views}), {score.unit}"
    return None


def _classes(runs: Sequence[ShownRun]) -> Iterator[Chart]:
    """The figures of each class, runs of one data set in one chart; of exactly two runs their difference."""
    found = [(place, run, values) for place, run in enumerate(runs) if (values := _class_values(run.figures))]
    by_source = sorted(found, key=lambda each: each[1].figures.record.dataset)
    for number_of_chart, (dataset, of) in enumerate(
        groupby(by_source, key=lambda each: each[1].figures.record.dataset)
    ):
        bars = {place: values for place, _, values in of}
        column = next(iter(bars.values())).column
        names = list(dict.fromkeys(name for values in bars.values() for name in values.by_class))
        shown = sorted(names, key=lambda name: _interest(name, list(bars.values())))[:MAX_CLASSES]
        rest = f", {len(names) - len(shown)} more in classes.csv" if len(names) > len(shown) else ""
        yield bar_chart(
            f"classes{number_of_chart}", shown,
            {place: [values.by_class.get(name) for name in shown] for place, values in bars.items()},
            x=f"{column}, %",
            caption=f"{dataset}: {column} of each class{rest}; "
            + ("where the runs differ most first." if len(bars) > 1 else "the worst first."),
        )  # fmt: skip
        if len(bars) == 2:
            (first, one), (second, other) = bars.items()
            both = [name for name in names if _is_known(one, name) and _is_known(other, name)]
            gains = sorted(both, key=lambda name: -abs(_gain(one, other, name)))[:MAX_CLASSES]
            yield bar_chart(
                f"gains{number_of_chart}", gains, {second: [_gain(one, other, name) for name in gains]},
                x=f"{column}, percentage points",
                caption=f"{runs[second].name} minus {runs[first].name}, class by class.",
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClassValues:
    """A column of classes.csv by class, in per cent."""

    column: str
    by_class: Mapping[str, float | None]


def _class_values(run: RunFigures) -> ClassValues | None:
    path = run.folder / "classes.csv"
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = [name for name in (rows[0] if rows else {}) if name in _CLASS_COLUMNS]
    if not measured:
        return None
    column = min(measured, key=_CLASS_COLUMNS.index)
    return ClassValues(
        column, {row.get("name") or row["class"]: _percent(row[column], column) for row in rows}
    )


_CLASS_COLUMNS = ("iou", "mask_ap", "box_ap", "top1_percent")
"""Figures of classes.csv that a chart shows, the first of those a run has."""


def _percent(text: str, column: str) -> float | None:
    return (1 if column.endswith("_percent") else 100) * float(text) if text else None


def _is_known(values: ClassValues, name: str) -> bool:
    return values.by_class.get(name) is not None


def _gain(one: ClassValues, other: ClassValues, name: str) -> float:
    return (other.by_class[name] or 0.0) - (one.by_class[name] or 0.0)


def _interest(name: str, runs: Sequence[ClassValues]) -> float:
    known = [value for run in runs if (value := run.by_class.get(name)) is not None]
    if not known:
        return 1e9
    return min(known) if len(runs) == 1 else min(known) - max(known)


def _differences(runs: Sequence[ShownRun]) -> Table:
    """Settings in which the runs differ, a column a run."""
    flat = [dict(_flat(run.figures.config)) for run in runs]
    names = [
        name
        for name in dict.fromkeys(name for each in flat for name in each)
        if name not in _NOT_SETTINGS and len({each.get(name) for each in flat}) > 1
    ]
    columns = [Column("setting"), *(Column(run.name) for run in runs)]
    return Table(columns, [[Cell(name), *(Cell(each.get(name, "–")) for each in flat)] for name in names])  # noqa: RUF001


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, "default" if value is None else str(value)


def _pictures(runs: Sequence[ShownRun]) -> Iterator[tuple[str, Path]]:
    """What evaluate and predict left in the run folders; curves are drawn anew above."""
    for run in runs:
        for path in sorted(run.figures.folder.glob("*.png")):
            if path.name != CURVES:
                yield f"{run.name}: {path.stem}", path
    for run in runs:
        for path in sorted((run.figures.folder / "predictions").glob("*.overlay.png"))[:4]:
            yield f"{run.name}: prediction of {path.name.removesuffix('.overlay.png')}", path
