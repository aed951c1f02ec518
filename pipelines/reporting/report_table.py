"""The table of a report as text: runs of one data set and backbone, the paper's rows beside them."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

from pipelines.pictures.drawable_text import shortened
from pipelines.reporting.paper_match import match_cost
from pipelines.reporting.paper_results import PaperRow, paper_dataset
from pipelines.reporting.report_rows import ReportRow
from pipelines.units import giga, gigabytes

_SHOWN_SCORES = 2
"""Of each kind of views; the CSV file has all."""
_WEIGHTS_LETTERS = 36
_COST_COLUMNS = ["input px", "tokens", "backbone", "a row", "head"]
"""Where runs recorded them: multiply-adds of backbone and head, bytes of the features read."""


class _Legend:
    """Texts below the table, each under a mark of its own."""

    def __init__(self, marks: Sequence[str]) -> None:
        self._marks, self.texts = marks, dict[str, str]()

    def mark(self, text: str) -> str:
        """Of a text; the same one for the same text."""
        if text not in self.texts:
            number = len(self.texts)
            self.texts[text] = (
                self._marks[number] if number < len(self._marks) else f"{self._marks[-1]}{number}"
            )
        return self.texts[text]

    def lines(self) -> Iterator[str]:
        yield from (f"[{mark}] {text}" for text, mark in self.texts.items())


def table_text(rows: Sequence[ReportRow]) -> str:
    """The table of rows of one data set and backbone, with its legend."""
    kinds = list(dict.fromkeys(kind for row in rows for kind in _shown(row)))
    header = ["head", "weights", "parameters", "steps", *(f"{name} ({views})" for views, name in kinds)]
    with_costs = any(_counted(row) for row in rows)
    header += [*_COST_COLUMNS * with_costs, "step", "peak", "hours", "store", "run"]
    with_paper = has_paper(rows)
    header += ["paper, frozen (fine-tuned)"] * with_paper
    settings, notes = _Legend([str(n) for n in range(1, 100)]), _Legend(string.ascii_lowercase)
    lines = [header, *(_cells(row, kinds, settings, notes, with_costs, with_paper) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    legend = [*settings.lines(), *notes.lines()]
    return "\n".join([", ".join(rows[0].source), *text, *legend, *_paper_cost(rows), ""])


def has_paper(rows: Sequence[ReportRow]) -> bool:
    """Whether a paper reports on the data set of these rows."""
    return paper_dataset(rows[0].first.record.dataset) is not None


def _shown(row: ReportRow) -> list[tuple[str, str]]:
    shown: dict[str, list[tuple[str, str]]] = {}
    for views, name in row.scores:
        shown.setdefault(views, []).append((views, name))
    return [kind for of in shown.values() for kind in of[:_SHOWN_SCORES]]


def _counted(row: ReportRow) -> bool:
    """Whether its run recorded costs that are counted, as those of earlier versions did not."""
    return row.first.costs is not None and row.first.costs.input_px is not None


def _cost_cells(row: ReportRow) -> list[str]:
    """Of _COST_COLUMNS."""
    costs = row.first.costs
    if costs is None or costs.input_px is None:
        return ["-"] * len(_COST_COLUMNS)
    height, width = costs.input_px
    neck = "" if not costs.neck_multiply_adds else f" (neck {giga(costs.neck_multiply_adds)})"
    return [
        f"{height}x{width}",
        "-" if costs.tokens is None else str(costs.tokens),
        "-" if costs.backbone_multiply_adds is None else giga(costs.backbone_multiply_adds),
        "-" if costs.row_bytes is None else gigabytes(costs.row_bytes),
        "-" if costs.multiply_adds is None else f"{giga(costs.multiply_adds)}{neck}",
    ]


def _cells(
    row: ReportRow,
    kinds: Sequence[tuple[str, str]],
    settings: _Legend,
    notes: _Legend,
    with_costs: bool,
    with_paper: bool,
) -> list[str]:
    run, seconds, peak, hours = row.first, row.step_seconds, row.peak_bytes, row.hours
    seeds = f" x{len(row.runs)}" if len(row.runs) > 1 else ""
    share = f", {100 * run.share:g} %" if run.share != 1 else ""
    own = f" [{settings.mark(row.settings)}]" if row.settings else ""
    marks = "".join(f" [{notes.mark(note)}]" for note in row.notes)
    return [
        f"{row.head}{own}{share}{seeds}",
        weights_cell(row),
        f"{run.parameters / 1e6:.2f} M{_neck_share(row)}",
        row.steps,
        *(str(row.scores[kind]) if kind in row.scores else "-" for kind in kinds),
        *(_cost_cells(row) if with_costs else ()),
        "-" if seconds is None else f"{seconds * 1e3:.0f} ms",
        "-" if peak is None else gigabytes(peak),
        "-" if hours is None else f"{hours:.2f}",
        f"{run.store} {run.record.codec or ''}".rstrip(),
        *((row.folders, paper_cell(row) + marks) if with_paper else (row.folders + marks,)),
    ]


def _neck_share(row: ReportRow) -> str:
    costs = row.first.costs
    if costs is None or not costs.neck_parameters:
        return ""
    return f" (neck {costs.neck_parameters / 1e6:.2f} M)"


def weights_cell(row: ReportRow) -> str:
    """The name of the backbone's weights, and their pretraining where it is known."""
    name = shortened(row.weights.name, _WEIGHTS_LETTERS)
    return f"{row.weights.pretraining} ({name})" if row.weights.pretraining else name


def paper_cell(row: ReportRow) -> str:
    """The printed scores and where they stand; without a row the reason."""
    if not row.paper.rows:
        return f"none: {row.paper.reason}"
    return "; also ".join(_printed(each) for each in row.paper.rows)


def _printed(row: PaperRow) -> str:
    """
    >>> from pipelines.reporting.paper_results import paper_rows_of
    >>> _printed(paper_rows_of("ade20k", "fpn", "swinv2-b", "SUP-22K")[0])
    'mIoU 48.8 (fine-tuned 51.3), ms+flip 50.0 (fine-tuned 52.2): table 10, FPN, swinv2-b SUP-22K'
    """
    shown = [
        f"{'' if views == 'single' else f'{views} '}{name} {_as_printed(value)} (fine-tuned)"
        for views, scores in row.fine_tuned.items()
        for name, value in scores.items()
        if not row.frozen
    ]
    for views, scores in row.frozen.items():
        for name, value in scores.items():
            tuned = row.fine_tuned.get(views, {}).get(name)
            label = name if views != "ms+flip" else views if len(scores) == 1 else f"{views} {name}"
            shown.append(f"{label} {value:.1f}" + (f" (fine-tuned {tuned:.1f})" if tuned is not None else ""))
    return f"{', '.join(shown)}: {row.describe()}"


def _as_printed(value: float) -> str:
    """
    >>> _as_printed(0.34), _as_printed(51.3)
    ('0.340', '51.3')
    """
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"  # metres; shares in per cent


def _paper_cost(rows: Sequence[ReportRow]) -> list[str]:
    """The paper's time and memory of an iteration, where it prints them for these classes and backbone."""
    cost = next((cost for row in rows if (cost := match_cost(row.first.record))), None)
    if cost is None:
        return []
    tuned = cost.fine_tuned
    beside = f"; fine-tuned {1e3 * tuned['seconds']:.0f} ms, {tuned['gb']:g} GB" if len(tuned) == 2 else ""
    return [
        f"paper, tables 7 and 8, {cost.batch_size} samples a step: frozen, larger head"
        f" {1e3 * cost.frozen['seconds']:.0f} ms, {cost.frozen['gb']:g} GB{beside}"
    ]
