"""Table of a page: columns that sort as numbers or as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A heading."""

    name: str
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown, and the number by which it sorts."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Headings and rows of equal length; notes stand below."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    name: str = ""
    notes: Sequence[str] = ()


def number(value: float | None, text: str) -> Cell:
    """A cell with a number; what was not measured is shown as a dash."""
    return Cell("–", None) if value is None else Cell(text.format(value), value)  # noqa: RUF001
