"""Progress of several processes of one extraction: each sends it through a pipe, the parent shows one bar."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

from extract.extractor.progress import Progress
from pipelines.cli.progress_bar import ExtractionProgress

PIPE = "PERMAFROST_PROGRESS_PIPE"
"""Environment variable of a process that another one started: the descriptor it writes its progress to."""
SEND_EVERY_S = 0.2
Show = Callable[[Progress], None]


@contextmanager
def extraction_progress(name: str) -> Iterator[Show]:
    """What to call with every progress of this process: a bar or log lines, or the pipe of its parent.

    Args:
        name: of the store.
    """
    descriptor = os.environ.get(PIPE, "")
    if descriptor.isdigit():
        yield _sender(int(descriptor))
    else:
        with ExtractionProgress(name) as shown:
            yield shown


def _sender(descriptor: int) -> Show:
    last_s = float("-inf")

    def send(progress: Progress) -> None:
        nonlocal last_s
        now = time.monotonic()
        if progress.finished_shard is None and now - last_s < SEND_EVERY_S:
            return
        last_s = now
        with contextlib.suppress(OSError):  # a parent that is gone needs no progress
            os.write(descriptor, json.dumps(dataclasses.asdict(progress)).encode() + b"\n")

    return send


class TogetherProgress:
    """One line for all processes; thread-safe.

    Args:
        show: called with the progress of all together.
        total: rows and shards that are to be done; None: what the first process found.
        rows_before: that were done before, where `total` is given.
    """

    def __init__(self, show: Show, *, total: tuple[int, int] | None = None, rows_before: int = 0) -> None:
        self._show, self._total, self._rows_before = show, total, rows_before
        self._of: dict[str, Progress] = {}
        self._first_total: dict[str, tuple[int, int, int]] = {}
        self._lock = threading.Lock()

    def read(self, process: str, descriptor: int) -> None:
        """Takes what a process sends until it ends; closes the descriptor."""
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError, TypeError):  # the last line of one that was killed
                    self.take(process, Progress(**json.loads(line)))

    def take(self, process: str, progress: Progress) -> None:
        with self._lock:
            self._of[process] = progress
            self._first_total.setdefault(
                process, (progress.rows_total, progress.shards_total, progress.rows_before)
            )
            self._show(self._together(progress.finished_shard))

    def _together(self, finished_shard: str | None) -> Progress:
        """Of what the processes found to do, that of the first counts: each later one finds less."""
        each = self._of.values()
        found = (*self._total, self._rows_before) if self._total else max(self._first_total.values())
        rows_total, shards_total, rows_before = found
        bottlenecks = Counter(progress.bottleneck for progress in each)
        return Progress(
            rows_done=sum(progress.rows_done for progress in each),
            rows_total=rows_total,
            rows_before=rows_before,
            failed_records=max(progress.failed_records for progress in each),
            shards_done=sum(progress.shards_done for progress in each),
            shards_total=shards_total,
            finished_shard=finished_shard,
            seconds=max(progress.seconds for progress in each),
            bytes_written=sum(progress.bytes_written for progress in each),
            bottleneck=bottlenecks.most_common(1)[0][0],
        )


def print_beside(line: str) -> None:
    """A line on stderr that leaves a bar whole."""
    with tqdm.external_write_mode(file=sys.stderr):
        print(line, file=sys.stderr, flush=True)


def receiving(environment: Mapping[str, str]) -> tuple[int, int, dict[str, str]]:
    """A pipe for a process: the end to read, the end that it inherits, and its environment."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    return reading, writing, {**environment, PIPE: str(writing)}
