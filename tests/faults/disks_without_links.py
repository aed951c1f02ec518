"""File operations of disks without hard links, on a disk that has them."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

from tests.faults.faulty_files import FaultyFiles

NO_LINK_ERRORS = (
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EACCES,
    errno.EMLINK,
    errno.EINVAL,
)
"""What `link` answers on file systems without hard links, by kind and kernel."""


def refuse(code: int, *_: object, **__: object) -> None:
    raise OSError(code, os.strerror(code))


class WithoutLinks(FaultyFiles):
    """A disk that has a rename which does not replace: SMB, exFAT, many FUSE mounts."""

    link_error = errno.EPERM

    def link(self, source: Path, target: Path) -> None:
        self._step("no link", partial(refuse, self.link_error))


class WithoutExclusiveStep(WithoutLinks):
    """A disk that has neither; only one process writes to it."""

    single_writer = True

    def rename_exclusive(self, source: Path, target: Path) -> None:
        self._step("no exclusive rename", partial(refuse, errno.EINVAL))
