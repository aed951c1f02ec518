"""Safe reads below the root of a store: no links, no pipes, no more bytes than expected."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from stores.errors import IntegrityError, NoSuchStore

_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe must not block
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY
_DAMAGE = {
    errno.ENOENT: "is missing",
    errno.ENOTDIR: "is missing: a file or a link is in place of its folder",
    errno.ELOOP: "is a symbolic link: a store holds its own bytes",
    errno.ENXIO: "is not a regular file",
}


class OpenFile:
    """A descriptor that is closed with its last reference, so that no thread reads from a reused number."""

    __slots__ = ("fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd, self.size = fd, size

    def read(self, length: int, offset: int) -> bytes:
        """At most `length` bytes from `offset`; empty at the end."""
        return os.pread(self.fd, length, offset)

    def read_into(self, out: memoryview, offset: int) -> int:
        """Fills `out` from `offset`; returns how many bytes, perhaps not all."""
        return os.preadv(self.fd, [out], offset)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.fd >= 0:  # a file at a URL has none
            close(self.fd)  # bound as a default: modules are already empty when the interpreter exits


class StoreFolder:
    """The root of a store, kept open: a store stays readable when it is moved.

    Raises NoSuchStore if the path is not a folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)  # the root itself may be a link
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchStore(f"{path} is not a folder: no store here") from None
        self._root: OpenFile | None = OpenFile(fd, 0)

    def close(self) -> None:
        """Closes the root; every later call raises ValueError."""
        self._root = None

    def _open_root(self) -> OpenFile:
        if self._root is None:
            raise ValueError(f"{self.path} was closed")
        return self._root

    def has(self, name: str) -> bool:
        """Whether there is an entry of this name below the root."""
        root = self._open_root()
        try:
            os.stat(name, dir_fd=root.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def open(self, relative: str, expected_bytes: int | None = None) -> OpenFile:
        """A regular file below the root, reached without following any link.

        Args:
            relative: its path.
            expected_bytes: its size by the plan, which saves a request at a URL; compared by the caller.

        Raises:
            IntegrityError: it is missing, or not a regular file of the store's own.
            OSError: the disk failed.
        """
        *folders, name = relative.split("/")
        at = self._open_root()
        try:
            for folder in folders:
                at = OpenFile(os.open(folder, _FOLDER, dir_fd=at.fd), 0)
            fd = os.open(name, _FILE, dir_fd=at.fd)
        except OSError as error:
            if error.errno not in _DAMAGE:
                raise
            raise IntegrityError(f"{self.path}: {relative} {_DAMAGE[error.errno]}") from None
        status = os.fstat(fd)
        opened = OpenFile(fd, status.st_size)
        if not stat.S_ISREG(status.st_mode):
            raise IntegrityError(f"{self.path}: {relative} is not a regular file")
        return opened

    def files(self) -> Iterator[str]:
        """Paths of all files and links below the root."""
        for folder, folders, names in os.walk(self.path):
            links = [name for name in folders if Path(folder, name).is_symlink()]
            for name in sorted([*names, *links]):
                yield Path(folder, name).relative_to(self.path).as_posix()

    def open_whole(self, relative: str) -> OpenFile:
        """The same of a file that is then read from its beginning to its end."""
        return self.open(relative)

    def use_cache(self, manifest_digest: str) -> None:
        """Says whose files these are; for stores at URLs, of which blocks are kept."""

    def will_read(self, array: str, planned_bytes: int, *, is_packed: bool) -> None:
        """Says that rows of an array will be read; for stores at URLs.

        Args:
            array: its path.
            planned_bytes: of all its shards.
            is_packed: whether rows are small.
        """

    @property
    def is_remote(self) -> bool:
        """Whether it is read over requests."""
        return False

    def read(self, relative: str, *, limit_bytes: int) -> bytes:
        """The whole of a small file. Raises IntegrityError as `open` does, or above `limit_bytes`."""
        opened = self.open(relative)
        if opened.size > limit_bytes:
            raise IntegrityError(
                f"{self.path}: {relative} has {opened.size} bytes, at most {limit_bytes} were expected"
            )
        parts, at = [], 0
        while part := os.pread(opened.fd, opened.size + 1 - at, at):
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def read_exactly(self, relative: str, length: int) -> bytes:
        """The whole of a file whose length is known. Raises IntegrityError for another length."""
        data = self.read(relative, limit_bytes=length)
        if len(data) != length:
            raise IntegrityError(f"{self.path}: {relative} has {len(data)} bytes, expected {length}")
        return data
