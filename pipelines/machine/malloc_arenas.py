"""One heap for all threads, where the C library would give each its own."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # glibc's malloc.h


def share_one_arena() -> bool:
    """Makes glibc serve every thread that starts from now on from one heap; False where malloc is another's.

    What one head frees, the next one's thread then takes again. With a heap a thread, the memory of every
    head's last step stays with its thread: four heads took a sixth more than the largest needs. Threads that
    take turns lose nothing by sharing.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1))
    except (OSError, AttributeError):
        return False
