"""`report`: compares runs with each other and the paper: a table, a CSV file and a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pipelines.config import ReportConfig
from pipelines.errors import UsageError
from pipelines.reporting.paper_results import PaperRow, paper_cost
from pipelines.reporting.report_rows import ReportRow, csv_rows, report_rows
from pipelines.reporting.run_summary import read_figures, run_folders
from pipelines.runs.checkpoint_files import DamagedCheckpoint, check_digest
from pipelines.runs.run_folder import checkpoints
from pipelines.units import gigabytes

_SHOWN_SCORES = 2
"""Of each kind of views, in the table; the CSV file has all."""


def run(config: ReportConfig) -> dict[str, Any]:
    """Prints the table, writes the CSV file and the picture where `out` asks for them.

    Raises UsageError where a folder named holds no run, and at the end DamagedRuns where the last checkpoint
    of a run is damaged.
    """
    if not config.run:
        raise UsageError("expected folders of runs, such as: python -m pipelines report runs/a runs/b")
    rows = report_rows([read_figures(folder) for folder in run_folders([Path(run) for run in config.run])])
    for source, of in groupby(rows, key=lambda row: row.source):
        print(_block(source, list(of)))
    table = csv_rows(rows)
    summary = {"rows": table, **_write(rows, table, config.out)}
    if damaged := _damaged(rows):
        raise DamagedRuns({**summary, "damaged": damaged})
    return summary


class DamagedRuns(DamagedCheckpoint):
    """Some of the runs have a damaged checkpoint; `summary` is that of the report, with what was found."""

    def __init__(self, summary: dict[str, Any]) -> None:
        self.summary = summary
        super().__init__("; ".join(summary["damaged"].values()))


def _damaged(rows: Sequence[ReportRow]) -> dict[str, str]:
    """Of each run whose last checkpoint is not as it was written, what is wrong with it."""
    found = {}
    for folder in (run.folder for row in rows for run in row.runs):
        try:
            for path in list(checkpoints(folder).values())[-1:]:
                check_digest(path)
        except DamagedCheckpoint as error:
            found[str(folder)] = str(error)
    return found


def _write(rows: Sequence[ReportRow], table: Sequence[dict[str, Any]], out: str | None) -> dict[str, str]:
    """The files that were written."""
    if out is None:
        return {}
    path = Path(out).with_suffix(".csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in table for name in row)))
        writer.writeheader()
        writer.writerows(table)
    written = {"csv": str(path)}
    # Late: matplotlib takes a second to load.
    from pipelines.reporting.report_picture import draw_report

    if draw_report(rows, path.with_suffix(".png")):
        written["picture"] = str(path.with_suffix(".png"))
    print("written: " + ", ".join(written.values()))
    return written


def _block(source: tuple[str, str], rows: Sequence[ReportRow]) -> str:
    """The table of one data set and backbone, as text."""
    kinds = list(dict.fromkeys(kind for row in rows for kind in _shown(row)))
    header = ["head", "parameters", "steps", *(f"{name} ({views})" for views, name in kinds)]
    header += ["step", "peak", "hours", "store", "paper, frozen (fine-tuned)"]
    lines = [header, *(_cells(row, kinds) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([", ".join(source), *text, *_paper_costs(source), ""])


def _shown(row: ReportRow) -> list[tuple[str, str]]:
    shown: dict[str, list[tuple[str, str]]] = {}
    for views, name in row.scores:
        shown.setdefault(views, []).append((views, name))
    return [kind for of in shown.values() for kind in of[:_SHOWN_SCORES]]


def _cells(row: ReportRow, kinds: Sequence[tuple[str, str]]) -> list[str]:
    run, seconds, peak, hours = row.first, row.step_seconds, row.peak_bytes, row.hours
    seeds = f" x{len(row.runs)}" if len(row.runs) > 1 else ""
    share = f", {100 * run.share:g} %" if run.share != 1 else ""
    return [
        f"{row.head}{share}{seeds}",
        f"{run.parameters / 1e6:.2f} M",
        str(run.config["max_steps"]),
        *(str(row.scores[kind]) if kind in row.scores else "-" for kind in kinds),
        "-" if seconds is None else f"{seconds * 1e3:.0f} ms",
        "-" if peak is None else gigabytes(peak),
        "-" if hours is None else f"{hours:.2f}",
        f"{run.store} {run.record.codec or ''}".rstrip(),
        "-" if row.paper is None else _paper_cell(row.paper),
    ]


def _paper_cell(row: PaperRow) -> str:
    """The printed scores, and where they stand.

    >>> from pipelines.reporting.paper_results import paper_row
    >>> _paper_cell(paper_row("ade20k", "fpn", "swinv2-b"))
    'mIoU 48.8 (51.3), ms+flip 50.0 (52.2): table 10, FPN, swinv2-b SUP-22K'
    """
    shown = []
    for views, scores in row.frozen.items():
        for name, value in scores.items():
            tuned = row.fine_tuned.get(views, {}).get(name)
            label = name if views != "ms+flip" else views
            shown.append(f"{label} {value:.1f}" + (f" ({tuned:.1f})" if tuned is not None else ""))
    return f"{', '.join(shown)}: {row.describe()}"


def _paper_costs(source: tuple[str, str]) -> list[str]:
    """The paper's time and memory of an iteration, where it prints them for this backbone."""
    cost = paper_cost(*source)
    if cost is None:
        return []
    tuned = cost.fine_tuned
    beside = f"; fine-tuned {1e3 * tuned['seconds']:.0f} ms, {tuned['gb']:g} GB" if len(tuned) == 2 else ""
    return [
        f"paper, tables 7 and 8, {cost.batch_size} samples a step: frozen, larger head"
        f" {1e3 * cost.frozen['seconds']:.0f} ms, {cost.frozen['gb']:g} GB{beside}"
    ]
