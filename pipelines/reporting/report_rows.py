"""The rows of a report: runs that differ in nothing but their seed as one, beside the paper's row."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.reporting.paper_results import PaperRow, paper_row
from pipelines.reporting.run_summary import RunFigures
from pipelines.tasks import task_info


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A score of several runs, in the unit in which people read it (per cent of a share)."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The standard deviation of a sample (n - 1); None of a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        """
        >>> print(Spread(values=(50.0,)), Spread(values=(50.0, 52.0, 51.0)))
        50.00 51.00 ± 1.00
        """
        shown = f"{self.mean:.2f}"
        return shown if self.deviation is None else f"{shown} ± {self.deviation:.2f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportRow:
    """One line: runs of one head on one store that differ in their seed."""

    runs: tuple[RunFigures, ...]

    @property
    def first(self) -> RunFigures:
        return self.runs[0]

    @property
    def source(self) -> tuple[str, str]:
        """Data set and backbone."""
        return self.first.record.dataset, self.first.record.model

    @property
    def scores(self) -> Mapping[tuple[str, str], Spread]:
        """(views, score) -> of those runs that were measured so."""
        info = task_info(self.first.record.task)
        kinds = {(views, name): None for run in self.runs for views, of in run.scores.items() for name in of}
        return {
            (views, name): Spread(
                values=tuple(
                    info.score(name).factor * run.scores[views][name]
                    for run in self.runs
                    if name in run.scores.get(views, {})
                )
            )
            for views, name in kinds
        }

    @property
    def step_seconds(self) -> float | None:
        return _mean(run.costs.step_seconds for run in self.runs if run.costs)

    @property
    def hours(self) -> float | None:
        """Of one run."""
        return _mean(run.costs.seconds / 3600 for run in self.runs if run.costs)

    @property
    def peak_bytes(self) -> int | None:
        """The largest of the runs."""
        return max((run.costs.peak_bytes for run in self.runs if run.costs), default=None)

    @property
    def paper(self) -> PaperRow | None:
        run = self.first
        return paper_row(run.record.dataset, run.record.head, run.record.model, run.share)

    @property
    def head(self) -> str:
        """With what sets it apart from the preset's name."""
        run = self.first
        settings = ",".join(f"{name}={value}" for name, value in run.record.full_settings.items())
        return run.record.head + (f" ({settings})" if settings else "")


def report_rows(runs: Sequence[RunFigures]) -> list[ReportRow]:
    """Runs as rows, those of one data set and backbone together, the smallest head first."""
    alike: dict[str, list[RunFigures]] = {}
    for run in runs:
        alike.setdefault(run.learned_alike(), []).append(run)
    rows = [
        ReportRow(runs=tuple(sorted(of, key=lambda run: (run.seed, run.folder)))) for of in alike.values()
    ]
    return sorted(rows, key=lambda row: (*row.source, row.first.parameters, row.first.store))


def csv_rows(rows: Sequence[ReportRow]) -> list[dict[str, Any]]:
    """The rows with every figure, as columns of a CSV file; scores in the units of their task."""
    return [{**_facts(row), **dict(_scores(row)), **dict(_paper(row))} for row in rows]


def _facts(row: ReportRow) -> dict[str, Any]:
    run = row.first
    return {
        "dataset": run.record.dataset,
        "task": run.record.task,
        "model": run.record.model,
        "head": row.head,
        "parameters": run.parameters,
        "runs": len(row.runs),
        "seeds": " ".join(str(each.seed) for each in row.runs),
        "share": run.share,
        "step_seconds": row.step_seconds,
        "batch_size": run.config["batch_size"],
        "steps": run.config["max_steps"],
        "peak_bytes": row.peak_bytes,
        "device": run.costs.device if run.costs else None,
        "hours": row.hours,
        "store": run.store,
        "codec": run.record.codec,
        "folders": " ".join(str(each.folder) for each in row.runs),
    }


def _scores(row: ReportRow) -> Iterator[tuple[str, float | None]]:
    for (views, name), spread in row.scores.items():
        yield f"{name} ({views})", spread.mean
        yield f"{name} ({views}) deviation", spread.deviation
        yield f"{name} ({views}) least", min(spread.values)
        yield f"{name} ({views}) most", max(spread.values)


def _paper(row: ReportRow) -> Iterator[tuple[str, Any]]:
    if (paper := row.paper) is None:
        return
    yield "paper", paper.describe()
    for kind, scores in (("frozen", paper.frozen), ("fine-tuned", paper.fine_tuned)):
        for views, of in scores.items():
            yield from ((f"paper {kind} {name} ({views})", value) for name, value in of.items())


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
