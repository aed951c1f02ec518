"""Other users of the machine, as whom a test runs part of itself; only root may."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LAB, STRANGERS = 23456, 34567
"""Groups."""

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as other users")


@contextmanager
def acting_as(user: int, group: int, umask: int = 0o022) -> Iterator[None]:
    """Inside, file permissions are those of this user. Import what is needed before: Python itself may be
    out of reach."""
    groups, before = os.getgroups(), os.umask(umask)
    os.setgroups([group])
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
        os.umask(before)


@contextmanager
def shared_folder(group: int, mode: int) -> Iterator[Path]:
    """A folder of a group that every user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="shared-") as folder:
        os.chmod(folder, 0o755)
        shared = Path(folder) / "features"
        shared.mkdir()
        os.chown(shared, 0, group)
        os.chmod(shared, mode)
        yield shared
