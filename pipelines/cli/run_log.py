"""The log of an extraction in its store: command, host, throughput of each shard, warnings."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from extract.extractor.progress import Progress
from stores.remote.opening import log_in
from stores.work.log import WriterLog


class _Warnings(logging.Handler):
    """What is logged as a warning or worse, such as failed attempts of a record or a shard, as events."""

    def __init__(self, log: WriterLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("stores.work.log"):
            self._log.write("warning", source=record.name, text=record.getMessage())


@contextmanager
def logged_run(
    store: Path, progress: Callable[[Progress], None], **facts: object
) -> Iterator[Callable[[Progress], None]]:
    """Logs a run into `log/` of its store while it lasts.

    Args:
        store: the folder of the store.
        progress: called with every progress, as before.
        facts: of the run, for its first event.

    Yields what to call with every progress.
    """
    log = log_in(store)
    log.write("begin", host=socket.gethostname(), pid=os.getpid(), command=sys.argv, **facts)

    def watch(found: Progress) -> None:
        progress(found)
        if found.finished_shard is not None:
            log.write(
                "shard",
                shard=found.finished_shard,
                rows_done=found.rows_done,
                seconds=round(found.seconds, 3),
                bytes_written=found.bytes_written,
                images_per_s=round(found.images_per_s, 3),
                bottleneck=found.bottleneck,
                waited_s={stage: round(seconds, 3) for stage, seconds in found.waited_s.items()},
            )

    handler = _Warnings(log)
    logging.getLogger().addHandler(handler)
    try:
        yield watch
    except BaseException as error:
        log.write("failed", error=f"{type(error).__name__}: {error}")
        raise
    else:
        log.write("end")
    finally:
        logging.getLogger().removeHandler(handler)
