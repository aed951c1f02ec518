"""The folder `work/` beside a store's arrays: ignored by readers, removed once the store is complete."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

WORK = "work"
LOG = "log"
"""Folder of what may name times and hosts; no part of the store either, and kept."""
BESIDE = (WORK, LOG)


def is_beside(path: str) -> bool:
    """Whether a slash-separated path below a store is in a folder that is no part of it."""
    return path.partition("/")[0] in BESIDE


def remove_work(root: Path) -> None:
    """Removes the folder of a complete store. What a late writer puts there meanwhile is left for `gc`."""
    with contextlib.suppress(OSError):
        shutil.rmtree(root / WORK)
