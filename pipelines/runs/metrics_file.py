"""Lightning logger that writes metrics.csv."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from pipelines.runs.metrics_csv import read_metrics


class MetricsFile(Logger):
    """metrics.csv: one line for each logged step, figures to their last digit; a resumed run appends.

    Lightning's own CSVLogger deletes the file of a run that is resumed.
    """

    def __init__(self, path: Path, resumed_step: int, check: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        check()
        self._check = check
        self._path = path
        self._rows = [row for row in read_metrics(path) if int(row["step"]) <= resumed_step]
        self._columns = list(dict.fromkeys(name for row in self._rows for name in row))
        self._write_all()

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They stand in config.yaml."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._check()
        row = {"step": str(step), **{name: repr(float(value)) for name, value in metrics.items()}}
        self._rows.append(row)
        if new := [name for name in row if name not in self._columns]:
            self._columns += new
            self._write_all()
            return
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _write_all(self) -> None:
        with self._path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self._rows)
