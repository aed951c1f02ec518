"""Exclusive creation of a file: whole, and by one writer only; the step that decides which writer won.

Three ways, tried in this order. A hard link: the file gets its second name unless that exists, on every
local disk and over NFS. A rename that does not replace (renameat2 with RENAME_NOREPLACE, Linux 3.15): SMB,
exFAT and many FUSE mounts, which have no hard links. A plain rename after a look whether the name is free,
only where the caller promises to be the single writer: two could replace each other's receipts.
"""

from __future__ import annotations

import errno
import uuid
from pathlib import Path

from stores.errors import NoExclusiveCreation
from stores.shards.disk import (
    Files,
    partial_of,
    read_whole,
    remove_if_there,
    sync_folders,
    write_partial,
)

LINK, RENAME, SINGLE_WRITER = "hard link", "rename without replacing", "single writer"
_NO_LINKS = (
    errno.EPERM,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EACCES,  # the folder can be written: the partial file was just created in it
    errno.EMLINK,
    errno.EINVAL,
)
"""What file systems without hard links answer."""
_NO_EXCLUSIVE_RENAME = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EACCES)


def publish(files: Files, source: Path, target: Path) -> str:
    """Gives a file in the same folder the name `target`; returns the way that worked: LINK, after which
    `source` is still there, RENAME or SINGLE_WRITER.

    Raises:
        FileExistsError: the name is taken.
        NoExclusiveCreation: the file system has no exclusive way.
    """
    try:
        files.link(source, target)
        return LINK
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno not in _NO_LINKS:
            raise
        no_links = error
    try:
        files.rename_exclusive(source, target)
        return RENAME
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno not in _NO_EXCLUSIVE_RENAME:
            raise
    if not files.single_writer:
        raise NoExclusiveCreation(str(target.parent), no_links.strerror or str(no_links))
    if _exists(files, target):
        raise FileExistsError(errno.EEXIST, "exists", str(target))
    files.rename(source, target)
    return SINGLE_WRITER


def _exists(files: Files, path: Path) -> bool:
    try:
        files.close(files.open(path))
    except FileNotFoundError:
        return False
    return True


def write_exclusive(files: Files, path: Path, data: bytes, writer_id: str) -> bool:
    """Creates a file with this content unless one exists; returns whether the file has this content.

    The file appears whole, with its bytes on the disk. A reply that a network file system lost and repeated
    as "exists" is recognised by the content: it holds the writer's id, or is the same for every writer.
    """
    try:
        if files.create_whole(path, data):
            return True
    except FileExistsError:
        return read_whole(files, path, 1 << 30) == data
    partial = partial_of(path, writer_id)
    write_partial(files, partial, data)
    try:
        way = publish(files, partial, path)
    except FileExistsError:
        way, won = LINK, read_whole(files, path, 1 << 30) == data
    except NoExclusiveCreation:
        remove_if_there(files, partial)
        raise
    else:
        won = True
    if way == LINK:
        remove_if_there(files, partial)  # gone where an exclusive rename was done and its reply lost
    if won:
        sync_folders(files, [path.parent])
    return won


def exclusive_way(files: Files, folder: Path) -> str | None:
    """The way of `publish` that an existing folder offers, found by trying; None: none of them is exclusive.

    Raises OSError where the folder cannot be written.
    """
    name = f".permafrost-exclusive-{uuid.uuid4().hex}"
    source, target = folder / f"{name}.partial", folder / name
    try:
        write_partial(files, source, b"probe")
        try:
            return publish(files, source, target)
        except NoExclusiveCreation:
            return None
    finally:
        for path in (source, target):
            remove_if_there(files, path)
