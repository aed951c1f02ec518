"""The root of a store at a URL: as stores.format.bounded_files.StoreFolder, over requests."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from functools import partial

from stores.errors import IntegrityError
from stores.format.bounded_files import OpenFile, StoreFolder
from stores.remote.block_cache import BLOCK_BYTES, BlockFile, block_cache
from stores.remote.object_client import client_of
from stores.remote.remote_file import CachedFile, RemoteObject, StreamedFile, fetch_threads
from stores.remote.remote_files import object_path
from stores.remote.store_url import StoreUrl

logger = logging.getLogger(__name__)

MEMORY_BYTES = 1 << 30
"""1 GiB of packed arrays are kept in memory where no disk cache has room for them."""
_DISK, _MEMORY, _STREAM = "disk", "memory", "stream"


class RemoteFolder(StoreFolder):
    """Reads of a store at a URL. Raises nothing: whether there is a store is asked by `has`."""

    def __init__(self, path: StoreUrl) -> None:
        self.path = path
        self._url = path
        self._client = client_of(path.place)
        self._is_closed = False
        self._manifest_digest: str | None = None
        self._ways: dict[str, str] = {}
        self._planned = {_DISK: 0, _MEMORY: 0}

    def close(self) -> None:
        self._is_closed = True

    def _key(self, relative: str) -> str:
        if self._is_closed:
            raise ValueError(f"{self.path} was closed")
        return (self._url / object_path(relative)).key

    def _object(self, relative: str, expected_bytes: int | None = None) -> RemoteObject:
        what = f"{self.path}: {relative}"
        return RemoteObject(self._client, self._key(relative), what, expected_bytes)

    def has(self, name: str) -> bool:
        return self._client.size(self._key(name)) is not None

    def files(self) -> Iterator[str]:
        """None of a web server, which lists nothing."""
        if self._url.is_writable:
            yield from (key[len(self._url.key) + 1 :] for key, _ in self._client.listed(self._url.key))

    def use_cache(self, manifest_digest: str) -> None:
        self._manifest_digest = manifest_digest

    def will_read(self, array: str, planned_bytes: int, *, is_packed: bool) -> None:
        if array in self._ways or self._manifest_digest is None:
            return
        for way, bound in ((_DISK, block_cache().bound), (_MEMORY, MEMORY_BYTES if is_packed else 0)):
            if self._planned[way] + planned_bytes <= bound:
                self._planned[way] += planned_bytes
                self._ways[array] = way
                return
        self._ways[array] = _STREAM
        logger.info(
            "%s: %s (%.1f GB) does not fit the block cache of %.1f GB beside what is read already: its rows "
            "are fetched again in every epoch; PERMAFROST_CACHE_GB sets the bound",
            *(self.path, array, planned_bytes / 1e9, block_cache().bound / 1e9),
        )

    def _way_of(self, relative: str) -> str:
        return next((w for array, w in self._ways.items() if relative.startswith(f"{array}/c")), _STREAM)

    @property
    def is_remote(self) -> bool:
        return True

    def open(self, relative: str, expected_bytes: int | None = None) -> OpenFile:
        source, way = self._object(relative, expected_bytes), self._way_of(relative)
        if way == _MEMORY:
            return CachedFile(source, _blocks_in_memory, lambda _: None, _unreachable)
        if way == _STREAM or self._manifest_digest is None:
            return StreamedFile(source)
        kept = block_cache()
        try:
            blocks = partial(kept.open, self._manifest_digest, relative)
            return CachedFile(source, blocks, kept.added, kept.warn)
        except IntegrityError:
            raise
        except OSError as error:
            if error.filename is None:  # of the server, not of the cache
                raise
            kept.warn(error)
            return StreamedFile(source)

    def open_whole(self, relative: str) -> OpenFile:
        """Copied to a temporary file first, block by block, several at once."""
        source = self._object(relative)
        size = source.look()
        with tempfile.TemporaryFile() as file:
            copy = OpenFile(os.dup(file.fileno()), size)

        def fetch(start: int) -> None:
            data, at = source.fetch(start, min(start + BLOCK_BYTES, size)), 0
            while at < len(data):
                at += os.pwrite(copy.fd, data[at:], start + at)

        list(fetch_threads().map(fetch, range(0, size, BLOCK_BYTES)))
        return copy

    def read(self, relative: str, *, limit_bytes: int) -> bytes:
        key = self._key(relative)
        try:
            return self._client.read(key, limit_bytes=limit_bytes)
        except FileNotFoundError:
            raise IntegrityError(f"{self.path}: {relative} is missing") from None


def _blocks_in_memory(object_bytes: int | None) -> BlockFile | None:
    return None if object_bytes is None else BlockFile.in_memory(object_bytes)


def _unreachable(error: OSError) -> None:
    raise error
