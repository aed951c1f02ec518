"""Writeback of a part of a file, begun before its sync: sync_file_range, which Python lacks.

posix_fadvise(POSIX_FADV_DONTNEED) begins it too, but then looks for clean pages to drop and, where some are
not, waits for every processor to empty its lists of pages.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from functools import cache

_SYNC_FILE_RANGE_WRITE = 2


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Starts to write these bytes of an open file to the disk, where the system has a way. Advice only: it
    promises nothing, and errors are those of a later fsync."""
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
