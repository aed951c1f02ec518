"""The papers' printed results that a run can stand beside: paper_tables.yaml, read and searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_TABLES = Path(__file__).parents[1] / "paper_tables.yaml"

Scores = Mapping[str, Mapping[str, float]]
"""Views of the test records (single, ms+flip, 4x3) -> score, named as a task names it -> per cent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperRow:
    """A row of one of the paper's tables of results."""

    table: int
    printed: str
    """What the paper calls the head."""
    dataset: str
    head: str
    """What we call it."""
    model: str
    pretraining: str
    share: float = 1.0
    """Of the training records."""
    frozen: Scores
    fine_tuned: Scores = field(default_factory=dict)
    """With the backbone trained too; empty where the paper prints none."""

    def describe(self) -> str:
        """Where it stands and which backbone it is of.

        >>> paper_row("ade20k", "fpn", "swinv2-b").describe()
        'table 10, FPN, swinv2-b SUP-22K'
        """
        share = f", {100 * self.share:g} % of the records" if self.share != 1 else ""
        return f"table {self.table}, {self.printed}, {self.model} {self.pretraining}{share}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperCost:
    """What the paper's tables 7 and 8 print for a training iteration."""

    dataset: str
    model: str
    batch_size: int
    """Samples of an iteration."""
    frozen: Mapping[str, float]
    """`gb` of a GPU's memory and `seconds`, with the larger head over a frozen backbone."""
    fine_tuned: Mapping[str, float] = field(default_factory=dict)
    """The same with the plain head and a trained backbone; empty where it does not fit the GPU."""


@cache
def _tables() -> Mapping[str, list[dict[str, Any]]]:
    import yaml  # late, so that doctor can say that it is missing

    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(_TABLES.read_text(encoding="utf-8"))
    return found


def paper_rows() -> tuple[PaperRow, ...]:
    """Every row."""
    return tuple(PaperRow(**row) for row in _tables()["results"])


def paper_costs() -> tuple[PaperCost, ...]:
    """Every cost."""
    return tuple(PaperCost(**cost) for cost in _tables()["costs"])


def paper_row(dataset: str, head: str, model: str, share: float = 1.0) -> PaperRow | None:
    """The row of the same data set, head and share of the records; of this backbone where there is one.

    None where the paper prints no such head; a row of another backbone says so in its `model`.
    """
    fitting = [row for row in paper_rows() if (row.dataset, row.head, row.share) == (dataset, head, share)]
    same = [row for row in fitting if row.model == model]
    return next(iter(same + fitting), None)


def paper_cost(dataset: str, model: str) -> PaperCost | None:
    """What an iteration cost the paper; None for other data sets and backbones."""
    return next((cost for cost in paper_costs() if (cost.dataset, cost.model) == (dataset, model)), None)
