"""The rows of a report: runs that differ in nothing but their seed as one, beside the paper's row."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.pictures.drawable_text import shortened
from pipelines.reporting.paper_match import PaperMatch, match_paper
from pipelines.reporting.pretraining import GivenPretraining, RunWeights, run_weights
from pipelines.reporting.run_summary import RunFigures
from pipelines.tasks import task_info

_HEAD_LETTERS = 24
_COUNTED = (
    *("tokens", "backbone_multiply_adds", "row_bytes"),
    *("neck_parameters", "multiply_adds", "neck_multiply_adds"),
)
"""Columns of a CSV file that are named as in costs.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A score of several runs, in the unit in which people read it (per cent of a share)."""

    values: tuple[float, ...]
    decimals: int = 2
    """With which they are read."""

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
        shown = f"{self.mean:.{self.decimals}f}"
        return shown if self.deviation is None else f"{shown} ± {self.deviation:.{self.decimals}f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportRow:
    """One line: runs of one head on one store that differ in their seed."""

    runs: tuple[RunFigures, ...]
    weights: RunWeights
    """Of the backbone."""
    paper: PaperMatch
    """The paper's rows of the same backbone, pretraining, classes and head, or why there are none."""

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
                ),
                decimals=info.score(name).decimals,
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
    def head(self) -> str:
        """The preset's name, short enough for a table; its settings stand in `settings`."""
        return shortened(self.first.record.head, _HEAD_LETTERS)

    @property
    def settings(self) -> str:
        """What sets the head apart from the preset of its name, such as width=16; empty: nothing."""
        return ", ".join(f"{name}={value}" for name, value in self.first.record.own_settings.items())

    @property
    def is_finished(self) -> bool:
        """Of all its runs alike."""
        return self.first.is_finished

    @property
    def steps(self) -> str:
        """Of training, and of how many where it has not finished."""
        wanted = self.first.config.get("max_steps")
        if self.is_finished:
            return str(wanted)
        done = sorted({run.steps_done for run in self.runs})
        return f"{'-'.join(map(str, done[:1] + done[1:][-1:]))} of {wanted}, not finished"

    @property
    def folders(self) -> str:
        """Where its runs are: the folder, or the folder they share and their names in it."""
        paths = [run.folder for run in self.runs]
        if len(paths) == 1:
            return str(paths[0])
        if len({path.parent for path in paths}) == 1:
            return f"{paths[0].parent} ({', '.join(path.name for path in paths)})"
        return ", ".join(map(str, paths))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know before comparing its scores."""
        behind = [run for run in self.runs if run.evaluated_step not in (None, run.steps_done)]
        stale = [
            f"{run.folder} was evaluated after step {run.evaluated_step} of {run.steps_done}"
            for run in behind
        ]
        weights = (self.weights.note,) if self.weights.note else ()
        return (*self.paper.notes, *weights, *stale)


def report_rows(runs: Sequence[RunFigures], pretraining: GivenPretraining | None = None) -> list[ReportRow]:
    """Runs as rows, those of one data set and backbone together, the smallest head first."""
    given = pretraining or GivenPretraining()
    alike: dict[str, list[RunFigures]] = {}
    for run in runs:
        alike.setdefault(run.learned_alike(), []).append(run)
    rows = [_row(sorted(of, key=lambda run: (run.seed, run.folder)), given) for of in alike.values()]
    return sorted(rows, key=lambda row: (*row.source, row.first.parameters, row.first.store))


def _row(runs: Sequence[RunFigures], pretraining: GivenPretraining) -> ReportRow:
    first = runs[0]
    weights = run_weights(first.record, first.folder, pretraining)
    paper = match_paper(first.record, first.share, weights)
    return ReportRow(runs=tuple(runs), weights=weights, paper=paper)


def csv_rows(rows: Sequence[ReportRow]) -> list[dict[str, Any]]:
    """The rows with every figure, as columns of a CSV file; scores in the units of their task."""
    return [{**_facts(row), **dict(_scores(row)), **dict(_paper(row))} for row in rows]


def _facts(row: ReportRow) -> dict[str, Any]:
    run = row.first
    return {
        "dataset": run.record.dataset,
        "task": run.record.task,
        "model": run.record.model,
        "weights": row.weights.name,
        "weights_sha256": run.record.weights_sha256,
        "pretraining": row.weights.pretraining,
        "head": run.record.head,
        "head_settings": row.settings,
        "parameters": run.parameters,
        "runs": len(row.runs),
        "seeds": " ".join(str(each.seed) for each in row.runs),
        "share": run.share,
        "step_seconds": row.step_seconds,
        "batch_size": run.config["batch_size"],
        "steps": run.config["max_steps"],
        "steps_done": min(each.steps_done for each in row.runs),
        "finished": row.is_finished,
        "peak_bytes": row.peak_bytes,
        **{name: getattr(run.costs, name, None) for name in _COUNTED},
        "input_px": "x".join(map(str, run.costs.input_px)) if run.costs and run.costs.input_px else None,
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
    if (paper := row.paper.row) is None:
        yield "paper missing", row.paper.reason
        return
    yield "paper", paper.describe()
    for kind, scores in (("frozen", paper.frozen), ("fine-tuned", paper.fine_tuned)):
        for views, of in scores.items():
            yield from ((f"paper {kind} {name} ({views})", value) for name, value in of.items())
    yield "paper notes", "; ".join(row.notes)


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
