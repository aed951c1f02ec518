"""Progress of long work: a bar on a terminal, elsewhere log lines at steady times."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from extract.extractor.progress import Progress
from pipelines.units import byte_rate, duration

logger = logging.getLogger(__name__)

LINE_EVERY_S = 10.0
"""Seconds of an extraction between log lines, which the first and the last shard have anyway."""
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"


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
        elif progress.finished_shard is not None and self._is_due(progress):
            self._logged_s = progress.seconds
            logger.info("%s", shard_line(self._name, progress))

    def _is_due(self, progress: Progress) -> bool:
        is_last = progress.shards_done == progress.shards_total
        return self._logged_s is None or is_last or progress.seconds - self._logged_s >= LINE_EVERY_S

    def _draw(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = tqdm(total=progress.rows_total, bar_format=_BAR, file=sys.stderr)
        self._bar.set_postfix_str(speed_text(progress), refresh=False)
        self._bar.update(progress.rows_done - self._bar.n)


def speed_text(progress: Progress) -> str:
    """Speed, bottleneck and time left, short enough to stand beside a bar in 80 columns."""
    left, rate = progress.seconds_left, progress.images_per_s
    return (
        f"{rate:.{0 if rate >= 100 else 1}f} images/s, {byte_rate(progress.bytes_per_s)},"
        f" slowest: {progress.bottleneck}"
        + ("" if left is None else f", {duration(left)} left")
        + (f", {progress.failed_records} failed" if progress.failed_records else "")
    )


def shard_line(name: str, progress: Progress) -> str:
    """The log line of a finished shard: progress, speed, bottleneck and time left."""
    left = progress.seconds_left
    return (
        f"{name}: shard {progress.finished_shard} done, {progress.shards_done} of {progress.shards_total}; "
        f"{progress.rows_done} of {progress.rows_total} rows, {progress.failed_records} records failed, "
        f"{progress.images_per_s:.1f} images/s, {byte_rate(progress.bytes_per_s)}, "
        f"bottleneck: {progress.bottleneck}" + ("" if left is None else f", {duration(left)} left")
    )
