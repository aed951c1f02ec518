"""Annotations that cannot be used: how many, of how many, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SHOWN_REASONS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class UnusableAnnotations:
    """Of one split of a data set."""

    count: int
    total: int
    """All annotations of the split, usable ones included."""
    records: int
    """With at least one that cannot be used."""
    reasons: Mapping[str, int]
    """Annotations by what is wrong with them, the most frequent first."""
    example: str
    """One of them with its record and its reason."""

    @property
    def share(self) -> float:
        return self.count / self.total

    def line(self) -> str:
        """One line for people."""
        shown = [f"{count} x {reason}" for reason, count in list(self.reasons.items())[:_SHOWN_REASONS]]
        more = [f"{len(self.reasons) - len(shown)} other reasons"] if len(self.reasons) > len(shown) else []
        return (
            f"{self.count} of {self.total} annotations ({self.share:.2%}), in {self.records} records, cannot "
            f"be used and are left out: {'; '.join([*shown, *more])}; such as {self.example}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "of": self.total,
            "share": self.share,
            "records": self.records,
            "reasons": dict(self.reasons),
            "example": self.example,
        }


class UnusableCounter:
    """Counts annotations of records, one record after the other."""

    def __init__(self) -> None:
        self._total, self._records, self._example = 0, 0, ""
        self._reasons: Counter[str] = Counter()

    def add(self, usable: int, problems: Sequence[tuple[str, str]], record: str) -> None:
        """A record's annotations: how many can be used, and (id, reason) of each other one."""
        self._total += usable + len(problems)
        self._records += bool(problems)
        self._reasons.update(reason for _, reason in problems)
        if problems and not self._example:
            number, reason = problems[0]
            self._example = f"annotation {number} of {record}: {reason}"

    def add_strangers(self, reasons: Mapping[str, int]) -> None:
        """Annotations of no record, by reason."""
        self._reasons.update(reasons)
        self._total += sum(reasons.values())

    def result(self) -> UnusableAnnotations | None:
        """None where all can be used."""
        if not self._reasons:
            return None
        return UnusableAnnotations(
            count=sum(self._reasons.values()),
            total=self._total,
            records=self._records,
            reasons=dict(self._reasons.most_common()),
            example=self._example or f"one {next(iter(self._reasons))}",
        )
