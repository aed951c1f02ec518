"""File operations of a writer, one method each, so that a test can fail, shorten or kill any of them.

The functions below the class hold the loops and the protocol; they access the disk only through `Files`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from stores.errors import StoreError
from stores.shards.linux_calls import rename_noreplace, start_writeback

logger = logging.getLogger(__name__)

T = TypeVar("T")
Buffer = bytes | bytearray | memoryview
_PARALLEL = 16  # threads that mostly wait for the disk
_UNSYNCABLE = (errno.EINVAL, errno.ENOTSUP)
"""What file systems without fsync answer, of files or of folders."""


class Files:
    """The operations on a local or network file system. Each raises the OSError of its system call.

    Args:
        single_writer: the caller promises that no other process writes to these folders, for file systems
            that cannot keep two writers apart; see stores.shards.exclusive.
    """

    single_writer = False

    def __init__(self, *, single_writer: bool = False) -> None:
        self.single_writer = single_writer

    def make_folder(self, path: Path) -> None:
        """Creates the folder if it is missing; its parent exists."""
        try:
            os.mkdir(path)
        except FileExistsError:
            if not path.is_dir():
                raise

    def create(self, path: Path) -> int:
        """A descriptor for reading and writing of a new file; raises FileExistsError if it exists. Who may
        read and write it besides its owner is the umask's choice."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, fd: int, parts: Sequence[Buffer], offset: int) -> int:
        """Writes the parts one after another from `offset`; returns the bytes written, perhaps not all."""
        return os.pwritev(fd, parts, offset)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """Starts writing these bytes to the disk, so that a later `sync` waits less."""
        start_writeback(fd, offset, length)

    def read(self, fd: int, length: int, offset: int) -> bytes:
        """At most `length` bytes from `offset`; empty at the end of the file."""
        return os.pread(fd, length, offset)

    def open(self, path: Path) -> int:
        """A descriptor for reading."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def size(self, fd: int) -> int:
        """Bytes of an open file; network file systems ask the server when it is opened."""
        return os.fstat(fd).st_size

    def stamp(self, fd: int) -> tuple[object, ...]:
        """Another one where an open file is not that of an earlier `open`, or was written since."""
        status = os.fstat(fd)
        return status.st_ino, status.st_mtime_ns, self.size(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def sync(self, fd: int) -> None:
        """Returns once the file's bytes are on the disk."""
        os.fsync(fd)

    def link(self, source: Path, target: Path) -> None:
        """Gives the file a second name or raises FileExistsError: the one exclusive step of the protocol."""
        os.link(source, target)

    def rename_exclusive(self, source: Path, target: Path) -> None:
        """Renames the file or raises FileExistsError: that step where there are no hard links."""
        rename_noreplace(source, target)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def create_whole(self, path: Path, data: bytes) -> bool:
        """Creates a file with this content in one step, where the storage has one; else returns False.

        Raises FileExistsError.
        """
        return False

    def replace_whole(self, path: Path, data: bytes) -> bool:
        """Replaces or creates a file in one step, where the storage has one; else returns False."""
        return False

    def unlink_each(self, paths: Sequence[Path]) -> None:
        """Deletes the files that exist, one after another."""
        for path in paths:
            remove_if_there(self, path)

    def remove_tree(self, path: Path) -> None:
        """Deletes a folder and its contents."""
        shutil.rmtree(path)

    def sync_folder(self, path: Path) -> None:
        """Returns once the folder's entries are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, path: Path) -> int:
        return shutil.disk_usage(path).free

    def run_all(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """Runs independent jobs in parallel; returns their results in order, or raises the first error."""
        if len(jobs) < 2:
            return [job() for job in jobs]
        with ThreadPoolExecutor(min(_PARALLEL, len(jobs)), thread_name_prefix="store-files") as pool:
            return [future.result() for future in [pool.submit(job) for job in jobs]]


def make_folders(files: Files, root: Path, relative: str) -> None:
    """Creates every missing folder of a slash-separated path below an existing root."""
    path = root
    for part in relative.split("/"):
        path = path / part
        files.make_folder(path)


def write_all(files: Files, fd: int, parts: Sequence[Buffer], offset: int) -> None:
    """Writes every byte of the parts, in as many calls as the file system needs."""
    left = [view for view in (memoryview(part).cast("B") for part in parts) if len(view)]
    while left:
        written = files.write(fd, left, offset)
        if written <= 0:
            raise OSError(errno.EIO, f"the file system wrote {written} of {sum(map(len, left))} bytes")
        offset += written
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left:
            left[0] = left[0][written:]


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of operations on an open file name its path: the system's do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def read_whole(files: Files, path: Path, limit_bytes: int) -> bytes:
    """The content of a file. Raises StoreError above `limit_bytes`, FileNotFoundError if it is missing."""
    fd = files.open(path)
    try:
        with naming(path):
            size = files.size(fd)
            if size > limit_bytes:
                raise StoreError(f"{path} has {size} bytes, at most {limit_bytes} were expected")
            parts, at = [], 0
            while part := files.read(fd, size + 1 - at, at):
                parts.append(part)
                at += len(part)
            return b"".join(parts)
    finally:
        files.close(fd)


def write_partial(files: Files, path: Path, data: bytes) -> None:
    """Creates a file with this content, on the disk; leaves none where that fails."""
    fd = files.create(path)
    try:
        with naming(path):
            write_all(files, fd, [data], 0)
        sync_file(files, fd, path)
    except OSError:
        remove_if_there(files, path)  # frees its bytes on a full disk
        raise
    finally:
        files.close(fd)


def partial_of(path: Path, writer_id: str) -> Path:
    """The writer's own name for a file that is not in place yet."""
    return path.with_name(f"{path.name}.{writer_id}.partial")


def replace_file(files: Files, path: Path, data: bytes, writer_id: str) -> None:
    """Atomically replaces a file, or creates it, with this content."""
    if files.replace_whole(path, data):
        return
    partial = partial_of(path, writer_id)
    write_partial(files, partial, data)
    files.rename(partial, path)


def replace_files(files: Files, root: Path, contents: Mapping[str, bytes], writer_id: str) -> None:
    """Replaces many files, by path below `root`, creates their folders and syncs all of it to the disk."""
    folders = {path.rpartition("/")[0] for path in contents} - {""}
    for folder in sorted(folders):
        make_folders(files, root, folder)

    def replace(path: str, data: bytes) -> None:
        replace_file(files, root / path, data, writer_id)

    files.run_all([partial(replace, path, data) for path, data in contents.items()])
    sync_folders(files, folders_of(root, contents))


def folders_of(root: Path, paths: Iterable[str]) -> list[Path]:
    """Every folder from `root` down to the files at these paths."""
    found = {
        root.joinpath(*path.split("/")[:depth]) for path in paths for depth in range(path.count("/") + 1)
    }
    return sorted(found)


def sync_file(files: Files, fd: int, path: Path) -> None:
    """Returns once the file's bytes are on the disk; see `sync_folders`."""
    try:
        files.sync(fd)
    except OSError as error:
        _note_unsyncable(error, path, "files")


def sync_folders(files: Files, folders: Sequence[Path]) -> None:
    """Syncs the entries of these folders; a file system that cannot is logged once and then trusted."""

    def sync(folder: Path) -> None:
        try:
            files.sync_folder(folder)
        except OSError as error:
            _note_unsyncable(error, folder, "folders")

    files.run_all([partial(sync, folder) for folder in folders])


_noted: set[str] = set()


def _note_unsyncable(error: OSError, path: Path, what: str) -> None:
    if error.errno not in _UNSYNCABLE:
        with naming(path):
            raise error
    if what not in _noted:
        logger.info(
            "%s: this file system cannot sync %s (%s); continuing without: a loss of power may damage what "
            "was written shortly before, which `verify` finds",
            *(path, what, error.strerror),
        )
    _noted.add(what)


def remove_if_there(files: Files, path: Path) -> None:
    """Deletes a file if it exists."""
    try:
        files.unlink(path)
    except FileNotFoundError:
        return
