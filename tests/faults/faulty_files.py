"""File operations with faults: the n-th fails, is cut short, or is the last of its process.

A kill is simulated by `Killed`, which nothing catches, and by operations that do nothing afterwards.
Since its memory is gone, what is left is a prefix of the operations that change the disk: killing before
each of those, and once half-way through each write, covers a kill at every operation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from stores.shards.disk import Buffer, Files

T = TypeVar("T")


class Killed(BaseException):
    """Simulates a killed process: no handler of the program under test may catch it."""


Fault = Callable[["FaultyFiles", Callable[[], Any], Callable[[], Any]], Any]
"""Takes the files, the operation and, for a write or read, the same one cut short."""


def fails(code: int) -> Fault:
    """The operation only raises."""

    def fault(files: FaultyFiles, run: Callable[[], Any], shortened: Callable[[], Any]) -> Any:
        raise OSError(code, os.strerror(code))

    return fault


def fails_half_way(code: int) -> Fault:
    """A part of the bytes is written, then the operation raises."""

    def fault(files: FaultyFiles, run: Callable[[], Any], shortened: Callable[[], Any]) -> Any:
        shortened()
        raise OSError(code, os.strerror(code))

    return fault


def shortens(files: FaultyFiles, run: Callable[[], Any], shortened: Callable[[], Any]) -> Any:
    """Fewer bytes than asked for, which is legal."""
    return shortened()


def kills(files: FaultyFiles, run: Callable[[], Any], shortened: Callable[[], Any]) -> Any:
    """The process dies before the operation."""
    files.die()
    raise Killed


def kills_half_way(files: FaultyFiles, run: Callable[[], Any], shortened: Callable[[], Any]) -> Any:
    """The process dies with a part of the bytes written."""
    shortened()
    files.die()
    raise Killed


class FaultyFiles(Files):
    """Counts operations from 0 and applies the fault of each number; jobs run one after another."""

    def __init__(self, faults: Mapping[int, Fault] | None = None) -> None:
        self.names: list[str] = []
        """Names of the operations so far."""
        self.changing: list[int] = []
        """Numbers of those that changed the disk."""
        self._faults = dict(faults or {})
        self._open: set[int] = set()
        self._dead = False

    def die(self) -> None:
        """Closes the descriptors, as the kernel does for a dead process."""
        self._dead = True
        for fd in self._open:
            os.close(fd)

    def _step(
        self,
        name: str,
        run: Callable[[], T],
        shortened: Callable[[], T] | None = None,
        *,
        changes: bool = False,
    ) -> T:
        if self._dead:
            raise Killed
        fault = self.fault_of(len(self.names), name)
        if changes:
            self.changing.append(len(self.names))
        self.names.append(name)
        if fault is None:
            return run()
        result: T = fault(self, run, shortened or run)
        return result

    def fault_of(self, number: int, name: str) -> Fault | None:
        return self._faults.get(number)

    def make_folder(self, path: Path) -> None:
        self._step("make_folder", partial(super().make_folder, path), changes=not path.exists())

    def create(self, path: Path) -> int:
        fd = self._step("create", partial(super().create, path), changes=True)
        self._open.add(fd)
        return fd

    def open(self, path: Path) -> int:
        fd = self._step("open", partial(super().open, path))
        self._open.add(fd)
        return fd

    def write(self, fd: int, parts: Sequence[Buffer], offset: int) -> int:
        whole = b"".join(parts)
        half = [whole[: len(whole) // 2 or 1]]
        write = super().write
        return self._step(
            "write", partial(write, fd, parts, offset), partial(write, fd, half, offset), changes=True
        )

    def read(self, fd: int, length: int, offset: int) -> bytes:
        short = min(length, 5)
        read = super().read
        return self._step("read", partial(read, fd, length, offset), partial(read, fd, short, offset))

    def size(self, fd: int) -> int:
        return self._step("size", partial(super().size, fd))

    def close(self, fd: int) -> None:
        if self._dead:
            return  # closed already
        self._open.discard(fd)
        super().close(fd)  # frees the descriptor even where the fault is an error
        self._step("close", lambda: None)

    def sync(self, fd: int) -> None:
        self._step("sync", lambda: None)  # the page cache is the disk of these tests

    def link(self, source: Path, target: Path) -> None:
        self._step("link", partial(super().link, source, target), changes=True)

    def rename_exclusive(self, source: Path, target: Path) -> None:
        self._step("link", partial(super().rename_exclusive, source, target), changes=True)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename", partial(super().rename, source, target), changes=True)

    def unlink(self, path: Path) -> None:
        self._step("unlink", partial(super().unlink, path), changes=True)

    def remove_tree(self, path: Path) -> None:
        self._step("remove_tree", partial(super().remove_tree, path), changes=True)

    def sync_folder(self, path: Path) -> None:
        self._step("sync_folder", lambda: None)

    def free_bytes(self, path: Path) -> int:
        return self._step("free_bytes", partial(super().free_bytes, path))

    def run_all(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        return [job() for job in jobs]


class FullDisk(FaultyFiles):
    """No space from operation n on: writes fail after a part of their bytes."""

    def __init__(self, start: int, code: int) -> None:
        super().__init__()
        self._start, self._fault = start, fails_half_way(code)
        self._nothing = fails(code)

    def fault_of(self, number: int, name: str) -> Fault | None:
        if number < self._start or name not in ("make_folder", "create", "write", "link"):
            return None
        return self._fault if name == "write" else self._nothing


class Slow(FaultyFiles):
    """A disk whose every read and write is short."""

    def fault_of(self, number: int, name: str) -> Fault | None:
        return shortens if name in ("write", "read") else None
