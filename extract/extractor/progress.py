"""Progress of an extraction, and its bottleneck."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

_WAITS = 0.1
"""Share of the time above which the backbone counts as waiting: start and end always take some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A moment of a running extraction."""

    rows_done: int
    """Of this run: written or skipped."""
    rows_total: int
    """Of this run."""
    failed_records: int
    """Records that cannot be used, those of earlier runs included."""
    shards_done: int
    shards_total: int
    """Of this run."""
    finished_shard: str | None
    """Name of the shard that was just finished; None between shards."""
    seconds: float
    bytes_written: int
    bottleneck: str
    """decode, backbone or write: which of them the others wait for."""
    rows_before: int = 0
    """Rows of shards that were finished before this run, or by others meanwhile."""
    waited_s: Mapping[str, float] = field(default_factory=dict)
    """Of `seconds`, those in which the backbone's thread waited for decode and for write; empty where several
    processes are counted together."""

    @property
    def images_per_s(self) -> float:
        return self.rows_done / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_s(self) -> float:
        return self.bytes_written / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None before there is one."""
        return (self.rows_total - self.rows_done) / self.images_per_s if self.rows_done else None


class Stopwatch:
    """Elapsed seconds, and how many of them the backbone's thread waited for other stages.

    Stages overlap, so busy times do not show the bottleneck. It is the stage that makes the backbone wait,
    for views or for room for its features.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._waited = {"decode": 0.0, "write": 0.0}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @contextmanager
    def waiting_for(self, stage: str) -> Iterator[None]:
        """Counts the time inside. Args: stage: decode or write."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._waited[stage] += time.monotonic() - began

    @property
    def waited_s(self) -> dict[str, float]:
        """Seconds by stage, decode and write."""
        return dict(self._waited)

    @property
    def bottleneck(self) -> str:
        """decode, backbone or write."""
        stage = max(self._waited, key=lambda stage: self._waited[stage])
        return stage if self._waited[stage] > _WAITS * self.seconds else "backbone"
