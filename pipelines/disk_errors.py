"""Errors of a disk with what to do: bytes, inodes, quota, permissions, a failing device."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_CONTINUES = "then run the command again, which continues where it stopped"
_REMEDIES = {
    errno.EDQUOT: "the quota of this disk is used up: remove files or ask for more",
    errno.EIO: f"the disk or the connection to it failed: look at its state (dmesg, mount), {_CONTINUES}",
    errno.ESTALE: f"the network file system no longer knows the file: look at the mount, {_CONTINUES}",
    errno.EACCES: "no permission: change the owner, group or mode of the file and its folder, or choose "
    "another folder",
    errno.EPERM: "the file system or the system's policy refuses this: choose a folder on another disk",
    errno.EROFS: "the disk is mounted read-only: choose a folder on another disk",
    errno.EINVAL: "the file system does not support this operation: choose a folder on another disk",
    errno.ENAMETOOLONG: "the file system takes no name of this length: choose a folder with a shorter path",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
}


def remedy(error: BaseException) -> str:
    """What to do about an error of the system; empty where the error itself says it, or is none of a disk."""
    if type(error) not in (OSError, PermissionError) or not isinstance(error, OSError):
        return ""  # own errors, and files that do not exist
    if error.errno == errno.ENOSPC:
        return _no_space(error.filename)
    return _REMEDIES.get(error.errno or 0, "")


def free_inodes(path: str | Path) -> int | None:
    """Files that may still be created on the disk of `path`; None where the disk does not count them."""
    here = Path(path).absolute()
    place = next(place for place in (here, *here.parents) if place.exists())
    counts = os.statvfs(place)
    return counts.f_favail if counts.f_files else None


def _no_space(path: object) -> str:
    if isinstance(path, str | bytes | os.PathLike) and free_inodes(os.fsdecode(path)) == 0:
        return "the disk has no inodes left, whatever bytes are free: remove files or choose another disk"
    return "no bytes are left on this disk: remove files or choose another disk"
