"""Whether the disk of the stores can keep two writers apart, found by trying."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pipelines.catalog.stores import existing_folder
from pipelines.errors import UsageError
from stores.errors import NoExclusiveCreation
from stores.remote.probe import CONDITIONAL_PUT, remote_way
from stores.remote.store_url import StoreUrl
from stores.shards.disk import Files
from stores.shards.exclusive import LINK, RENAME, exclusive_way

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
UNKNOWN = "unknown: the folder cannot be written"


def way_of(stores: Path) -> str | None:
    """How files are created exclusively where the stores are or would be; None: there is no way; UNKNOWN
    where nothing can be written. Raises OSError for a disk that fails or is full."""
    if isinstance(stores, StoreUrl):
        return remote_way(stores)
    try:
        return exclusive_way(Files(), existing_folder(stores))
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        return UNKNOWN


def require_exclusive(stores: Path, *, single_writer: bool) -> None:
    """Raises UsageError where the disk cannot keep two writers apart and the user has not promised one."""
    if isinstance(stores, StoreUrl):
        if remote_way(stores) is None and not single_writer:
            raise UsageError(
                f"--stores {stores}: the server at {_endpoint(stores)} ignores If-None-Match, so it cannot "
                "keep two writers apart; pass --single-writer and let no other process write to the store"
            )
        return
    if not single_writer and way_of(stores) is None:
        refusal = NoExclusiveCreation(str(existing_folder(stores)), "found by trying")
        raise UsageError(f"--stores {stores}: {refusal}")


def _endpoint(stores: StoreUrl) -> str:
    """Which server was asked."""
    return os.environ.get("AWS_ENDPOINT_URL") or stores.place


def way_text(way: str | None) -> str:
    """A way in words, for `plan` and `doctor`."""
    if way == CONDITIONAL_PUT:
        return "conditional puts keep several writers apart"
    if way == LINK:
        return "hard links keep several writers apart"
    if way == RENAME:
        return "no hard links; renames that do not replace a file keep several writers apart"
    if way == UNKNOWN:
        return UNKNOWN
    return "neither hard links nor renames that do not replace a file: one writer at a time (--single-writer)"
