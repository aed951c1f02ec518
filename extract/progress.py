"""How an extraction is getting on, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STAGES = ("decode", "backbone", "write")


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
    """Name of the shard whose end this moment is; None for one in between."""
    seconds: float
    bytes_written: int
    bottleneck: str
    """decode, backbone or write: what most time went to waiting for."""

    @property
    def images_per_s(self) -> float:
        return self.rows_done / self.seconds if self.seconds else 0.0

    @property
    def mb_per_s(self) -> float:
        return self.bytes_written / 1e6 / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None before there is one."""
        return (self.rows_total - self.rows_done) / self.images_per_s if self.rows_done else None


class Stopwatch:
    """Seconds since it was made, and how many of them each stage took. `during` is for one thread a stage."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._spent = dict.fromkeys(STAGES, 0.0)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Counts the time inside for a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._spent[stage] += time.monotonic() - began

    def add(self, stage: str, seconds: float) -> None:
        self._spent[stage] += seconds

    @property
    def bottleneck(self) -> str:
        return max(STAGES, key=lambda stage: self._spent[stage])
