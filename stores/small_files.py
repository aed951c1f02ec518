"""Small files of unknown origin, read within bounds: no pipes, no more bytes or parts than expected.

An edited or sparse file must cost an error, not the machine's memory. Their errors are ValueErrors.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SMALL_BYTES = 16 << 20  # 16 MiB: far more than settings, records and descriptions take
MOST_PARTS = 1_000_000
"""Values in a small document. A few bytes may stand for many: YAML's aliases repeat what they name."""


class SmallFileError(ValueError):
    """A file is not what a small file can be; names it."""


def read_small(path: str | Path, limit_bytes: int = SMALL_BYTES) -> bytes:
    """The content of a regular file of at most `limit_bytes`.

    Raises SmallFileError for a longer one, a pipe or a device; OSError where it cannot be read.
    """
    # Without waiting: a pipe that nobody writes to would wait for ever.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SmallFileError(f"{path} is not a regular file")
        if status.st_size > limit_bytes:
            raise SmallFileError(f"{path} has {status.st_size} bytes, at most {limit_bytes} are read")
        data = file.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise SmallFileError(f"{path} grew beyond {limit_bytes} bytes while it was read")
        return data


def read_small_text(path: str | Path, limit_bytes: int = SMALL_BYTES) -> str:
    """The same as UTF-8, without a byte order mark. Raises UnicodeDecodeError too, a ValueError."""
    return read_small(path, limit_bytes).decode("utf-8-sig")


def read_json(path: str | Path, limit_bytes: int = SMALL_BYTES) -> Any:
    """The value in a JSON file. Raises ValueError for what is none."""
    data = read_small(path, limit_bytes)
    try:
        require_few_containers(data, str(path))
        return json.loads(data)
    except RecursionError:
        raise SmallFileError(f"{path} is nested too deeply") from None


def read_parsed(path: str | Path, parse: Callable[[str], Any], limit_bytes: int = SMALL_BYTES) -> Any:
    """The value that `parse`, such as yaml.safe_load, finds in a text file.

    Raises what `parse` raises; ValueError beyond the bounds.
    """
    text = read_small_text(path, limit_bytes)
    try:
        value = parse(text)
    except RecursionError:
        raise SmallFileError(f"{path} is nested too deeply") from None
    require_few_parts(value, str(path))
    return value


def require_few_parts(value: object, what: str, most: int = MOST_PARTS) -> None:
    """Raises SmallFileError for a value of more than `most` parts; what aliases repeat counts again."""
    left, layer = most, [value]
    while layer:
        left -= len(layer)
        if left < 0:
            raise SmallFileError(f"{what} holds more than {most} values")
        inner: list[object] = []
        for outer in layer:
            inner += _inside(outer)
            if len(inner) > left:
                break
        layer = inner


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple | set) else ()


def require_few_containers(data: bytes, what: str) -> None:
    """Raises SmallFileError for JSON of a great many lists and objects for its length.

    A parsed `{}` takes some 70 bytes for its three. Real files have names and values in them: at least 16
    bytes for each.
    """
    containers = data.count(b"{") + data.count(b"[")
    most = MOST_CONTAINERS + len(data) // 16
    if containers > most:
        raise SmallFileError(f"{what} holds {containers} lists and objects in {len(data)} bytes")


MOST_CONTAINERS = 100_000
"""In any file, however short."""
