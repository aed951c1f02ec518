"""Problems that a verification found, and how each is repaired."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Repair(Enum):
    """How a problem is repaired."""

    RESUME = "resume"
    """Run the extraction again: nothing is damaged, the store is not finished."""
    SHARD = "shard"
    """Remove the shard's receipts and the manifest; the extraction then writes this shard again."""
    COMMIT = "commit"
    """Remove the manifest; the extraction then writes its tables and metadata again."""
    FOREIGN = "foreign"
    """Remove a file that is not part of the store."""
    NONE = "none"
    """Move the store away and extract again: it cannot be trusted as a whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One difference from what was written."""

    store: str
    shard: str | None
    """The bin and number, such as "512x512-3"; None if it concerns the whole store."""
    rows: tuple[int, ...]
    """Plan rows that cannot be trusted; empty if no row's data are affected."""
    what: str
    repair: Repair


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What verify_store found."""

    problems: tuple[Problem, ...]
    bytes_read: int

    @property
    def ok(self) -> bool:
        return not self.problems
