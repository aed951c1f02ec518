"""A store's root on a disk or at a URL, as its path says."""

from __future__ import annotations

from pathlib import Path

from stores.format.bounded_files import StoreFolder
from stores.remote.store_url import StoreUrl, store_path
from stores.shards.disk import Files


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


def bytes_below(path: Path) -> int | None:
    """Bytes of all files of a store; None at a web server, which lists none."""
    if not isinstance(path, StoreUrl):
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if not path.is_writable:
        return None
    # Late: as above.
    from stores.remote.object_client import client_of

    return sum(size for _, size in client_of(path.place).listed(path.key))
