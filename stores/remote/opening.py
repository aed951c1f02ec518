"""A store's root on a disk or at a URL, as its path says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stores.format.bounded_files import StoreFolder
from stores.remote.store_url import StoreUrl, store_path
from stores.shards.disk import Files
from stores.work.attempts import Attempts
from stores.work.claims import Claims, unfinished_claims
from stores.work.folder import LOG, WORK, remove_work
from stores.work.holder import Holder, is_alive, is_here
from stores.work.log import WriterLog


def open_folder(path: str | Path) -> StoreFolder:
    """The root of the store at a path or URL.

    Raises NoSuchStore if a path is not a folder, BadUrl for a URL that no store can be at, RemoteError
    without the extra `remote`.
    """
    place = store_path(path)
    if not isinstance(place, StoreUrl):
        return StoreFolder(place)
    # Late: local stores need no client.
    from stores.remote.remote_folder import RemoteFolder

    return RemoteFolder(place)


def files_of(path: Path, *, single_writer: bool = False) -> Files:
    """The file operations on the store at a path or URL. Args: single_writer: see Files."""
    if not isinstance(path, StoreUrl):
        return Files(single_writer=single_writer)
    # Late: as above.
    from stores.remote.remote_files import RemoteFiles

    return RemoteFiles(path, single_writer=single_writer)


def claims_on(path: Path, **settings: Any) -> Claims:
    """The claims of this run on the store at a path or URL; `settings` are those of Claims."""
    if not isinstance(path, StoreUrl):
        return Claims(path, **settings)
    # Late: as above.
    from stores.remote.remote_work import RemoteClaims

    return RemoteClaims(path, **settings)


def unfinished_claims_on(path: Path) -> Mapping[str, Holder | None]:
    """Claims on a store of processes that are not known to have ended."""
    if not isinstance(path, StoreUrl):
        return unfinished_claims(path)
    if not path.is_writable:
        return {}
    # Late: as above.
    from stores.remote.remote_work import claimed_at

    return {n: h for n, h in claimed_at(path).items() if not (h and is_here(h) and not is_alive(h))}


def attempts_on(path: Path) -> Attempts:
    """The attempts of the store at a path or URL."""
    if not isinstance(path, StoreUrl):
        return Attempts(path)
    # Late: as above.
    from stores.remote.remote_work import RemoteAttempts

    return RemoteAttempts(path)


def log_in(path: Path) -> WriterLog:
    """A log of this run in the store at a path or URL."""
    if not isinstance(path, StoreUrl):
        return WriterLog(path)
    # Late: as above.
    from stores.remote.remote_work import RemoteLog

    return RemoteLog(path)


def writer_logs(root: Path) -> list[Path]:
    """The log files of a store, those written last at the end; none of a web server, which lists nothing, and
    in no order at a URL."""
    try:
        found = list((root / LOG).glob("*.jsonl"))
        return found if isinstance(root, StoreUrl) else sorted(found, key=lambda path: path.stat().st_mtime)
    except OSError:
        return []


def remove_work_of(files: Files, path: Path) -> None:
    """Removes `work/` of a complete store."""
    if isinstance(path, StoreUrl):
        files.remove_tree(path / WORK)
    else:
        remove_work(path)


def bytes_below(path: Path) -> int | None:
    """Bytes of all files of a store; None at a web server, which lists none."""
    if not isinstance(path, StoreUrl):
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if not path.is_writable:
        return None
    # Late: as above.
    from stores.remote.object_client import client_of

    return sum(size for _, size in client_of(path.place).listed(path.key))
