"""Output without control characters of names: stdout, log lines and errors show them escaped."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast

from stores.format.printable import escaped, escaped_lines


class OneLine(logging.Formatter):
    """A log record on one line: a line break in a name cannot forge another record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = escaped(record.message)
        return super().formatMessage(record)


class _Escaping:
    """A text stream; line breaks and tabs stay."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(escaped_lines(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def escaping_stdout() -> Iterator[None]:
    """While it is open, what is printed is escaped."""
    with redirect_stdout(cast("TextIO", _Escaping(sys.stdout))):
        yield


def start_logging() -> None:
    """Log lines of this program on stderr, with the time of day."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler])
    for package in ("stores", "extract", "heads", "pipelines"):
        logging.getLogger(package).setLevel(logging.INFO)
