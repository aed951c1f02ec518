"""`report`: compares runs with each other and the paper: a table, a CSV file and a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pipelines.config import ReportConfig
from pipelines.errors import UsageError
from pipelines.json_output import write_json
from pipelines.reporting.pretraining import given_pretraining
from pipelines.reporting.report_rows import ReportRow, csv_rows, report_rows
from pipelines.reporting.report_table import table_text
from pipelines.reporting.run_summary import read_figures, run_folders
from pipelines.runs.checkpoint_files import DamagedCheckpoint, check_digest
from pipelines.runs.run_folder import checkpoints


def run(config: ReportConfig) -> dict[str, Any]:
    """Prints the table, writes the CSV file and the picture where `out` asks for them.

    Raises UsageError where a folder named holds no run, or for a pretraining that the paper does not have;
    and at the end DamagedRuns where the last checkpoint of a run is damaged.
    """
    if not config.run:
        raise UsageError("expected folders of runs, such as: python -m pipelines report runs/a runs/b")
    if config.out is not None and Path(config.out).suffix.lower() not in _WRITERS:
        raise UsageError(f"--out {config.out}: expected a name that ends with {', '.join(_WRITERS)}")
    pretraining = given_pretraining(config.pretraining)
    folders = run_folders([Path(run) for run in config.run])
    rows = report_rows([read_figures(folder) for folder in folders], pretraining)
    for _, of in groupby(rows, key=lambda row: row.source):
        print(table_text(list(of)))
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
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = _WRITERS[path.suffix.lower()](rows, table, path)
    print("written: " + ", ".join(written.values()))
    return written


def _write_page(rows: Sequence[ReportRow], table: Sequence[dict[str, Any]], path: Path) -> dict[str, str]:
    # Late: the table alone draws nothing, and matplotlib takes a second to load.
    from pipelines.pages.runs_page import write_runs_page

    write_runs_page(rows, path)
    return {"page": str(path)}


def _write_json(rows: Sequence[ReportRow], table: Sequence[dict[str, Any]], path: Path) -> dict[str, str]:
    write_json(path, {"rows": table})
    return {"json": str(path)}


def _write_csv(rows: Sequence[ReportRow], table: Sequence[dict[str, Any]], path: Path) -> dict[str, str]:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in table for name in row)))
        writer.writeheader()
        writer.writerows(table)
    written = {"csv": str(path)}
    # Late: matplotlib takes a second to load.
    from pipelines.reporting.report_picture import draw_report

    if draw_report(rows, path.with_suffix(".png")):
        written["picture"] = str(path.with_suffix(".png"))
    return written


_WRITERS = {".html": _write_page, ".csv": _write_csv, ".json": _write_json}
"""By the ending of `--out`."""
