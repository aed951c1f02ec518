"""How long work shows itself: a bar on a terminal, one log line a finished shard elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from extract.progress import Progress
from pipelines.byte_sizes import duration

logger = logging.getLogger(__name__)


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) for `total` like things; one line says it elsewhere than on a terminal."""
    if not sys.stderr.isatty():
        logger.info("%s (%d)", what, total)
        yield lambda done, total: None
        return
    with tqdm(total=total, desc=what, file=sys.stderr) as bar:
        yield lambda done, total: bar.update(done - bar.n)


class ExtractionProgress:
    """A callback for `extract.extractor.extract`; closes its bar when left."""

    def __init__(self, name: str, *, on_terminal: bool | None = None) -> None:
        self._name = name
        self._on_terminal = sys.stderr.isatty() if on_terminal is None else on_terminal
        self._bar: Any = None

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
        elif progress.finished_shard is not None:
            logger.info("%s", shard_line(self._name, progress))

    def _draw(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = tqdm(total=progress.rows_total, desc=self._name, unit="row", file=sys.stderr)
        self._bar.update(progress.rows_done - self._bar.n)
        self._bar.set_postfix_str(
            f"{progress.mb_per_s:.0f} MB/s, {progress.failed_records} failed, waits for {progress.bottleneck}"
        )


def shard_line(name: str, progress: Progress) -> str:
    """One line about a finished shard: how far, how fast, how long still, and what is slowest."""
    left = progress.seconds_left
    return (
        f"{name}: shard {progress.finished_shard} done, {progress.shards_done} of {progress.shards_total}; "
        f"{progress.rows_done} of {progress.rows_total} rows, {progress.failed_records} records failed, "
        f"{progress.images_per_s:.1f} images/s, {progress.mb_per_s:.0f} MB/s, waits for {progress.bottleneck}"
        + ("" if left is None else f", {duration(left)} left")
    )
