"""File operations of a writer on a store in object storage.

A file is written to a nameless local one and uploaded when it is synced. One that is not in place yet, which
a disk holds under a partial name, is uploaded below `work/<writer>/`; to rename it is to copy it on the
server and to delete it there, which may be repeated. Files whose creation decides something are created by
one conditional request (If-None-Match: *), since uploads in parts take no conditions.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stores.errors import RemoteError, StoreError
from stores.remote.block_cache import cache_folder
from stores.remote.object_client import ObjectClient, client_of
from stores.remote.store_url import StoreUrl
from stores.shards.disk import Files

_PARTIAL = re.compile(r"(.*)\.([0-9a-f]{32})\.partial")
_FIRST_HANDLE = 1 << 30
"""Handles of objects begin above any descriptor."""
_SMALL_BYTES = 1 << 20
"""1 MiB: read with the first request of a file that is not a shard."""
_SHARD = re.compile(r"/c(\.\d+|/\d+)+$")
_DELETED_AT_ONCE = 1000
UNLIMITED_BYTES = 1 << 62
"""Free bytes of object storage."""


@dataclass(slots=True)
class _Opened:
    """An object that is read."""

    key: str
    size: int
    etag: str | None
    head: memoryview


class RemoteFiles(Files):
    """The operations below the root of one store; see the module. Each raises RemoteError too.

    Args:
        root: of the store.
        single_writer: the caller promises that no other process writes to it, for servers that ignore
            conditions.
    """

    def __init__(self, root: StoreUrl, *, single_writer: bool = False) -> None:
        super().__init__(single_writer=single_writer)
        self._root = root
        self._client: ObjectClient = client_of(root.place)
        self._handles = itertools.count(_FIRST_HANDLE)
        self._opened: dict[int, _Opened] = {}
        self._created: dict[int, str] = {}

    def _key(self, path: Path) -> str:
        assert isinstance(path, StoreUrl)
        if not path.is_relative_to(self._root):
            return path.key
        return f"{self._root.key}/{object_path(path.relative_to(self._root).as_posix())}"

    def make_folder(self, path: Path) -> None:
        """Object storage has no folders."""

    def create(self, path: Path) -> int:
        folder = cache_folder() / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            descriptor = os.dup(file.fileno())
        self._created[descriptor] = self._key(path)
        return descriptor

    def sync(self, fd: int) -> None:
        """Uploads the file."""
        self._client.put(self._created[fd], lambda: os.fdopen(os.dup(fd), "rb"))

    def read(self, fd: int, length: int, offset: int) -> bytes:
        opened = self._opened.get(fd)
        if opened is None:
            return super().read(fd, length, offset)
        stop = min(offset + length, opened.size)
        if stop <= offset:
            return b""
        if stop <= len(opened.head):
            return bytes(opened.head[offset:stop])
        return bytes(self._client.read_range(opened.key, offset, stop, etag=opened.etag).data)

    def open(self, path: Path) -> int:
        key = self._key(path)
        opened = self._with_head(key) if _SHARD.search(key) is None else None
        if opened is None:
            size, etag = self._client.head(key)
            opened = _Opened(key, size, etag, memoryview(b""))
        handle = next(self._handles)
        self._opened[handle] = opened
        return handle

    def _with_head(self, key: str) -> _Opened | None:
        """A small object, or the beginning of another; None where it is empty."""
        try:
            found = self._client.read_range(key, 0, _SMALL_BYTES)
        except RemoteError as error:
            if error.status != 416:
                raise
            return None
        return _Opened(key, found.object_bytes, found.etag, found.data)

    def size(self, fd: int) -> int:
        opened = self._opened.get(fd)
        return super().size(fd) if opened is None else opened.size

    def stamp(self, fd: int) -> tuple[object, ...]:
        opened = self._opened.get(fd)
        return super().stamp(fd) if opened is None else (opened.etag, opened.size)

    def close(self, fd: int) -> None:
        if self._opened.pop(fd, None) is None:
            self._created.pop(fd, None)
            super().close(fd)

    def link(self, source: Path, target: Path) -> None:
        raise StoreError(f"{target}: object storage has no links")

    def create_whole(self, path: Path, data: bytes) -> bool:
        key = self._key(path)
        if self.single_writer:
            if self._client.size(key) is not None:
                raise FileExistsError(f"{path} exists")
            self._client.put(key, data)
        else:
            self._client.put_new(key, data)
        return True

    def replace_whole(self, path: Path, data: bytes) -> bool:
        self._client.put(self._key(path), data)
        return True

    def rename(self, source: Path, target: Path) -> None:
        key = self._key(source)
        self._client.copy(key, self._key(target))
        self._client.delete([key])

    def unlink(self, path: Path) -> None:
        self._client.delete([self._key(path)])

    def unlink_each(self, paths: Sequence[Path]) -> None:
        for some in _batches([self._key(path) for path in paths]):
            self._client.delete(some)

    def remove_tree(self, path: Path) -> None:
        for some in _batches([key for key, _ in self._client.listed(self._key(path))]):
            self._client.delete(some)

    def sync_folder(self, path: Path) -> None:
        """Object storage keeps what it has confirmed."""

    def free_bytes(self, path: Path) -> int:
        return UNLIMITED_BYTES


def object_path(relative: str) -> str:
    """Where a file of a store is in object storage: one that is not in place below its writer's folder.

    >>> object_path("bins/64x64/levels/p4/q/c.0.0.0.0." + "ab" * 16 + ".partial")[:60]
    'work/abababababababababababababababab/bins/64x64/levels/p4/q'
    >>> object_path("plan.json")
    'plan.json'
    """
    partial = _PARTIAL.fullmatch(relative)
    return f"work/{partial[2]}/{partial[1]}" if partial else relative


def _batches(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _DELETED_AT_ONCE):
        yield keys[start : start + _DELETED_AT_ONCE]
