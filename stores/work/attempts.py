"""Attempts: how often work on a record or a shard has ended a process, over all runs and processes.

Each is a file `work/attempts/<name>.<n>`, created exclusively, that holds the reason. They are counted, not
timed: a run that was ended from outside while it worked alone on one record counts once, and only three such
ends skip the record.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from stores.work.folder import WORK

ATTEMPTS = "attempts"
MOST_DEATHS = 3
"""After which a shard's records are tried one by one, and a record is skipped."""
_MAX_REASON_BYTES = 1000


def record_name(key: str) -> str:
    """The name of a record's attempts: keys may hold any character."""
    return f"record-{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def shard_attempts(name: str) -> str:
    """The name of a shard's attempts."""
    return f"shard-{name}"


class Attempts:
    """The attempts of one store; thread-safe.

    Args:
        root: of the store; None: they are kept in memory.
    """

    def __init__(self, root: Path | None) -> None:
        self._folder = None if root is None else root / WORK / ATTEMPTS
        self._in_memory: dict[str, list[str]] = {}
        self._known = self._names()

    def _names(self) -> set[str]:
        """What had attempts when this run began: most records have none, and are not looked up."""
        try:
            return {name.rpartition(".")[0] for name in os.listdir(self._folder)} if self._folder else set()
        except OSError:
            return set()

    def reasons(self, name: str) -> list[str]:
        """Why each attempt failed, in order."""
        return self._read(name) if name in self._known else []

    def _read(self, name: str) -> list[str]:
        found = list(self._in_memory.get(name, ()))
        for number in sorted(self._numbers(name)):
            with contextlib.suppress(OSError), open(f"{self._folder}/{name}.{number}", "rb") as file:
                found.append(file.read(_MAX_REASON_BYTES).decode(errors="replace"))
        return found

    def _numbers(self, name: str) -> list[int]:
        try:
            files = os.listdir(self._folder) if self._folder else []
        except OSError:
            return []
        ends = [file.rpartition(".")[2] for file in files if file.rpartition(".")[0] == name]
        return [int(end) for end in ends if end.isascii() and end.isdigit()]

    def add(self, name: str, reason: str, *, times: int = 1) -> list[str]:
        """Counts a failed attempt, or one that stands for several; the reasons of all."""
        for _ in range(times):
            if self._create(name, reason) is None:
                self._in_memory.setdefault(name, []).append(reason)
        self._known.add(name)
        return self._read(name)

    @contextlib.contextmanager
    def counted(self, name: str, reason: str) -> Iterator[None]:
        """Counts an attempt that ends this process: its file is there while the work lasts."""
        path = self._create(name, reason)
        try:
            yield
        finally:
            if path is not None:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _create(self, name: str, reason: str) -> Path | None:
        """None where no file can be created: counting is no reason to stop."""
        if self._folder is None:
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for number in range(1, 1000):
                path = self._folder / f"{name}.{number}"
                try:
                    with path.open("xb") as file:
                        file.write(reason.encode()[:_MAX_REASON_BYTES])
                    return path
                except FileExistsError:
                    continue
        except OSError:
            pass
        return None
