"""The log of a run, metrics.csv, as rows."""

from __future__ import annotations

import csv
from pathlib import Path


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The lines of a run's log, none where there is no log yet. A line cut off by a kill is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in rows if row.get("step", "").isdigit() and len(row) > 1]
