"""Progress of long work: a bar on a terminal, elsewhere log lines at steady times."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tqdm import tqdm

from pipelines.units import byte_rate, duration

if TYPE_CHECKING:
    from extract.extractor.progress import Progress  # training shows its steps here too, without an extractor

logger = logging.getLogger(__name__)

LINE_EVERY_S = 10.0
"""Seconds of an extraction between log lines, which the first and the last shard have anyway."""
QUIET_S = 30.0
"""After so many seconds without a line comes one of what is done so far, also in the middle of a shard."""
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
BOTTLENECKS = {"decode": "decoding", "backbone": "backbone", "write": "writing"}
"""The stages of an extraction in words."""


def is_terminal() -> bool:
    """Whether stderr is a terminal with room for a bar; without a size it is a log."""
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) for `total` items: a bar on a terminal, else one log line first."""
    if not is_terminal():
        logger.info("%s (%d)", what, total)
        yield lambda done, total: None
        return
    with tqdm(total=total, desc=what, file=sys.stderr) as bar:
        yield lambda done, total: bar.update(done - bar.n)


class ExtractionProgress:
    """A callback for `extract.extractor.run.extract`; closes its bar when left."""

    def __init__(self, name: str, *, on_terminal: bool | None = None) -> None:
        """Args: name: of the store, the start of each log line; a bar leaves it out for lack of room."""
        self._name = name
        self._on_terminal = is_terminal() if on_terminal is None else on_terminal
        self._bar: Any = None
        self._logged_s: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: Progress) -> None:
        if self._on_terminal:
            self._draw(progress)
        elif self._is_due(progress):
            self._logged_s = progress.seconds
            logger.info("%s", progress_line(self._name, progress))

    def _is_due(self, progress: Progress) -> bool:
        if progress.finished_shard is None:
            return progress.rows_done > 0 and progress.seconds - (self._logged_s or 0.0) >= QUIET_S
        is_last = progress.shards_done == progress.shards_total
        return self._logged_s is None or is_last or progress.seconds - self._logged_s >= LINE_EVERY_S

    def _draw(self, progress: Progress) -> None:
        total = progress.rows_before + progress.rows_total
        if self._bar is None:
            self._bar = tqdm(total=total, bar_format=BAR, file=sys.stderr)
        self._bar.set_postfix_str(speed_text(progress), refresh=False)
        self._bar.total = total
        self._bar.update(progress.rows_before + progress.rows_done - self._bar.n)


def progress_text(
    rate: float, unit: str, seconds_left: float | None, waits_for: str, more: Sequence[str] = ()
) -> str:
    """What stands after the count in every line of progress: rate, time left, what the work waits for.

    Args:
        rate: of `unit` a second.
        seconds_left: None before there is a rate.
        more: of this kind of work only.

    >>> progress_text(31.23, "rows", 75, "the head", ["loss 0.5"])
    '31.2 rows/s, 1.2 min left, waits for the head, loss 0.5'
    """
    left = [] if seconds_left is None else [f"{duration(seconds_left)} left"]
    shown = f"{rate:.{0 if rate >= 100 else 1}f} {unit}/s"
    return ", ".join([shown, *left, f"waits for {waits_for}", *more])


def speed_text(progress: Progress) -> str:
    """`progress_text` of an extraction, short enough to stand beside a bar in 80 columns."""
    failed = [f"{progress.failed_records} failed"] if progress.failed_records else []
    more = [*failed, byte_rate(progress.bytes_per_s)]  # a narrow terminal cuts the last
    waits_for = BOTTLENECKS[progress.bottleneck]
    return progress_text(progress.images_per_s, "rows", progress.seconds_left, waits_for, more)


def progress_line(name: str, progress: Progress) -> str:
    """A log line of an extraction, with the shard that was finished, if any; rows are of the whole store."""
    done, total = (progress.rows_before + rows for rows in (progress.rows_done, progress.rows_total))
    shard = f"; shard {progress.finished_shard} done" if progress.finished_shard is not None else ""
    return f"{name}: {done} of {total} rows, {speed_text(progress)}{shard}"
