"""System calls of Linux that Python lacks: a rename that never replaces, writeback begun before a sync."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_SYNC_FILE_RANGE_WRITE = 2


def rename_noreplace(source: Path, target: Path) -> None:
    """Renames the file unless `target` exists (renameat2: Linux 3.15, glibc 2.28 or musl 1.1.22).

    Raises FileExistsError; OSError with ENOSYS where the system has no such call, with EINVAL where the file
    system does not support it.
    """
    call = _renameat2()
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(source), None, str(target))
    paths = os.fsencode(source), os.fsencode(target)
    if call(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_NOREPLACE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(source), None, str(target))


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # another system, or an older libc
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    found: Callable[[int, bytes, int, bytes, int], int] = call
    return found


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Starts to write these bytes of an open file to the disk, where the system has a way. Advice only: it
    promises nothing, and errors are those of a later fsync.

    By sync_file_range. posix_fadvise(POSIX_FADV_DONTNEED) starts it too, but then looks for clean pages to
    drop and, where some are not, waits for every processor to empty its lists of pages.
    """
    call = _sync_file_range()
    if call is not None and call(fd, offset, length, _SYNC_FILE_RANGE_WRITE) == 0:
        return
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        call = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):  # another system than Linux
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    call.restype = ctypes.c_int
    found: Callable[[int, int, int, int], int] = call
    return found
