"""Log of a writer: what may name times, hosts and durations, in `log/<writer>.jsonl` beside the arrays.

No part of the store: readers, `verify` and the digests ignore it, `gc` spares it. A log that cannot be
written is no reason to stop.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stores.work.folder import LOG

logger = logging.getLogger(__name__)
MAX_BYTES = 4 << 20
"""Of a log file that are read: the last 4 MiB."""


class WriterLog:
    """One file of one run; a line of JSON an event.

    Args:
        root: of the store; must exist when the first event is written.
        clock: seconds since 1970, for tests.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = root / LOG / f"{uuid.uuid4().hex}.jsonl"
        self._clock, self._failed = clock, False

    def write(self, event: str, **fields: object) -> None:
        """Adds an event with the present time; values that JSON lacks are written as text."""
        line = json.dumps({"time": self._clock(), "event": event, **fields}, default=str) + "\n"
        try:
            self.path.parent.mkdir(exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            if not self._failed:
                logger.warning("%s cannot be written, the extraction continues: %s", self.path, error)
            self._failed = True


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Events of a log, in order; lines that are none are left out, of a log that cannot be read all."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_BYTES))
            lines = file.read(MAX_BYTES).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
            float(event["time"])
        except (ValueError, KeyError, TypeError):  # the cut first line, or one of a full disk
            continue
        yield event
