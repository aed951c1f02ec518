"""Whether a run is compute-bound or I/O-bound, and the numbers that show it."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.units import byte_rate

WAITING_SHARE = 0.1
"""From this share of a run's time on, spent waiting for rows, the log warns that the run is I/O-bound."""
_BLOCK_BYTES = 512  # of ru_inblock, whatever the disk's own (getrusage(2), block/blk-core.c)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a feed has done since it was made."""

    batches: int = 0
    bytes: int = 0
    """Of stored features."""
    waited_s: float = 0.0
    """That steps spent waiting for a batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Time and reading of a run between two log lines."""

    seconds: float
    waited_s: float
    bytes: int
    disk_bytes: int
    """Those that this process had to fetch from a disk; the others were in memory, or came over a network
    file system that does not count."""

    @property
    def waited_share(self) -> float:
        """Of the time, 0..1, spent waiting for rows."""
        return min(1.0, self.waited_s / self.seconds) if self.seconds > 0 else 0.0

    @property
    def mb_s(self) -> float:
        return self.bytes / self.seconds / 1e6 if self.seconds > 0 else 0.0

    @property
    def disk_mb_s(self) -> float:
        return self.disk_bytes / self.seconds / 1e6 if self.seconds > 0 else 0.0

    def metrics(self) -> dict[str, float]:
        """Columns of the run's log."""
        return {"waited_share": self.waited_share, "read_mb_s": self.mb_s}

    def waits_for(self) -> str:
        """What the steps wait for: the head itself or, in a run that is I/O-bound, the rows, with figures.

        >>> slow = Pace(seconds=10, waited_s=4.3, bytes=2 * 10**9, disk_bytes=18 * 10**8)
        >>> slow.waits_for()
        'the disk (43 % of the time, read at 200 MB/s, 180 MB/s from the disk)'
        >>> Pace(seconds=10, waited_s=0.1, bytes=2 * 10**9, disk_bytes=0).waits_for()
        'the head'
        """
        if self.waited_share < WAITING_SHARE:
            return "the head"
        what = "the disk" if self.disk_bytes > self.bytes / 2 else "reading"
        return (
            f"{what} ({100 * self.waited_share:.0f} % of the time, read at {byte_rate(1e6 * self.mb_s)}, "
            f"{byte_rate(1e6 * self.disk_mb_s)} from the disk)"
        )


class PaceMeter:
    """Measures the pace of each interval from what `reading` reports a feed has done so far."""

    def __init__(self, reading: Callable[[], Reading]) -> None:
        self._reading = reading
        self._since, self._before, self._disk_before = time.perf_counter(), reading(), _disk_bytes()

    def interval(self) -> Pace:
        """Since the last call, or since this was made."""
        now, found, disk = time.perf_counter(), self._reading(), _disk_bytes()
        pace = Pace(
            seconds=now - self._since,
            waited_s=found.waited_s - self._before.waited_s,
            bytes=found.bytes - self._before.bytes,
            disk_bytes=disk - self._disk_before,
        )
        self._since, self._before, self._disk_before = now, found, disk
        return pace


def _disk_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock * _BLOCK_BYTES
