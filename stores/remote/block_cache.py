"""Block cache on a local disk: what was read of objects, in aligned blocks of 4 MiB.

One sparse file an object and beside it a map: the object's size, then for each block whether it is there and
its CRC32C. Files are named by the digest of the store's manifest and the path in the store, never by a URL,
so that copies of a store share them. Processes share them too: a block is marked after its bytes are written.
A block that a power cut or a disk damaged does not have its CRC32C and is fetched again.

The folder is kept below a bound by removing the files that were not used for the longest time. One that is
removed while a process has it open stays readable to that process.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from stores.shards.shard_index import crc32c

logger = logging.getLogger(__name__)

BLOCK_BYTES = 4 << 20
"""4 MiB."""
DEFAULT_BYTES = 100 << 30
"""100 GiB, or half of what is free if that is less."""
FOLDER_VARIABLE, SIZE_VARIABLE = "PERMAFROST_CACHE", "PERMAFROST_CACHE_GB"
_MAGIC = b"PFBLOCK1"
_HEADER = struct.Struct("<8sQ")
_ENTRY = struct.Struct("<II")
_ABSENT, _THERE = 0, 1
_FIRST_ENTRY = _HEADER.size
_CHECKS_A_BOUND = 64
"""The folder is measured whenever so much of the bound was added."""
_DATA, _MAP = ".blocks", ".map"


def cache_folder() -> Path:
    """$PERMAFROST_CACHE, else the user's cache folder."""
    own = os.environ.get(FOLDER_VARIABLE)
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(own) if own else home / "permafrost"


class BlockFile:
    """Blocks of one object; thread-safe.

    Args:
        data: descriptor of the sparse file; closed with this.
        entries: the map.
        object_bytes: size of the object.
    """

    def __init__(self, data: int, entries: mmap.mmap, object_bytes: int) -> None:
        self.fd, self.object_bytes = data, object_bytes
        self._entries = entries
        self.blocks = -(-object_bytes // BLOCK_BYTES)

    @classmethod
    def in_memory(cls, object_bytes: int) -> BlockFile:
        """Blocks that are kept in memory, and go with this."""
        data = os.memfd_create("blocks", os.MFD_CLOEXEC)
        os.ftruncate(data, object_bytes)
        return cls(data, mmap.mmap(-1, _map_bytes(object_bytes)), object_bytes)

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self.fd)

    def has(self, block: int) -> bool:
        return self._entries[_FIRST_ENTRY + _ENTRY.size * block] == _THERE

    def bounds(self, block: int) -> tuple[int, int]:
        """First byte of a block and the first after it."""
        start = block * BLOCK_BYTES
        return start, min(start + BLOCK_BYTES, self.object_bytes)

    def put(self, block: int, at: int, data: memoryview) -> None:
        """Writes a piece of a block, `at` bytes from its beginning. Raises OSError for a full disk."""
        start, stop = block * BLOCK_BYTES + at, block * BLOCK_BYTES + at + len(data)
        while start < stop:
            start += os.pwrite(self.fd, data[start - stop :], start)

    def keep(self, block: int, crc: int) -> None:
        """Marks a block whose bytes were written. Args: crc: their CRC32C."""
        place = _FIRST_ENTRY + _ENTRY.size * block
        _ENTRY.pack_into(self._entries, place, _ABSENT, crc)
        self._entries[place] = _THERE  # last: another process may read it from here on

    def drop_damaged(self, block: int) -> bool:
        """Forgets a block that does not have its CRC32C; returns whether it did."""
        if not self.has(block):
            return False
        start, stop = self.bounds(block)
        _, expected = _ENTRY.unpack_from(self._entries, _FIRST_ENTRY + _ENTRY.size * block)
        if crc32c(os.pread(self.fd, stop - start, start)) == expected:
            return False
        self._entries[_FIRST_ENTRY + _ENTRY.size * block] = _ABSENT
        return True

    @property
    def is_removed(self) -> bool:
        """Whether its file was removed to make room."""
        return os.fstat(self.fd).st_nlink == 0


def _map_bytes(object_bytes: int) -> int:
    return _FIRST_ENTRY + _ENTRY.size * max(1, -(-object_bytes // BLOCK_BYTES))


@dataclass(frozen=True, slots=True)
class _Kept:
    """Both files of an object."""

    data: Path
    used: float
    bytes: int


class BlockCache:
    """The cache of this machine's user.

    Args:
        folder: created when the first block is kept.
        bound: bytes that it may take; 0: nothing is kept on disk.
    """

    def __init__(self, folder: Path, bound: int) -> None:
        self.folder, self.bound = folder, bound
        self._lock = threading.Lock()
        self._unmeasured = 0
        self._is_measured = False
        self._warned = False

    def open(self, manifest_digest: str, path: str, object_bytes: int | None) -> BlockFile | None:
        """The blocks of an object.

        Args:
            manifest_digest: of the store.
            path: in the store.
            object_bytes: its size; None: that of the cache is taken, and without one None is returned.

        Raises OSError where nothing can be kept.
        """
        data, entries = self._paths(manifest_digest, path)
        known = _size_in(entries)
        if known is None or object_bytes not in (None, known):
            if object_bytes is None:
                return None
            _create(data, entries, object_bytes)
        elif object_bytes is None:
            object_bytes = known
        try:
            return _opened(data, entries, object_bytes)
        except (OSError, ValueError):  # removed just now, or cut off
            _create(data, entries, object_bytes)
            return _opened(data, entries, object_bytes)

    def _paths(self, manifest_digest: str, path: str) -> tuple[Path, Path]:
        stem = self.folder / manifest_digest / quote(path, safe="")
        return stem.with_name(stem.name + _DATA), stem.with_name(stem.name + _MAP)

    def added(self, count: int) -> None:
        """So many bytes were kept: removes the oldest files where the bound is exceeded."""
        with self._lock:
            self._unmeasured += count
            if self._is_measured and self._unmeasured < self.bound // _CHECKS_A_BOUND:
                return
            self._unmeasured, self._is_measured = 0, True
            self._remove_oldest()

    def _remove_oldest(self) -> None:
        kept = sorted(self._kept(), key=lambda each: each.used)
        total = sum(each.bytes for each in kept)
        for each in kept:
            if total <= self.bound - self.bound // _CHECKS_A_BOUND:
                return
            for path in (each.data.with_suffix(_MAP), each.data):  # without its map a file holds nothing
                with contextlib.suppress(OSError):
                    path.unlink()
            total -= each.bytes

    def _kept(self) -> Iterator[_Kept]:
        for data in self.folder.glob(f"*/*{_DATA}"):
            with contextlib.suppress(OSError):
                yield _Kept(data, data.with_suffix(_MAP).stat().st_mtime, data.stat().st_blocks * 512)

    @property
    def used_bytes(self) -> int:
        """Bytes of all blocks on the disk."""
        return sum(each.bytes for each in self._kept())

    def warn(self, error: OSError) -> None:
        """Says once that nothing can be kept."""
        if not self._warned:
            logger.warning("%s: nothing more can be kept, rows are fetched again: %s", self.folder, error)
        self._warned = True


def _size_in(entries: Path) -> int | None:
    try:
        with entries.open("rb") as file:
            magic, size = _HEADER.unpack(file.read(_HEADER.size))
            is_whole = os.fstat(file.fileno()).st_size == _map_bytes(size)
    except (OSError, struct.error):
        return None
    return size if magic == _MAGIC and is_whole else None


def _create(data: Path, entries: Path, object_bytes: int) -> None:
    """Both files, without a block. Whoever has older ones open keeps those."""
    data.parent.mkdir(parents=True, exist_ok=True)
    for path, head, size in (
        (data, b"", object_bytes),
        (entries, _HEADER.pack(_MAGIC, object_bytes), _map_bytes(object_bytes)),
    ):
        new = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
        with new.open("wb") as file:
            file.write(head)
            file.truncate(size)
        new.replace(path)


def _opened(data: Path, entries: Path, object_bytes: int) -> BlockFile:
    descriptor = os.open(entries, os.O_RDWR | os.O_CLOEXEC)
    try:
        mapped = mmap.mmap(descriptor, _map_bytes(object_bytes))
        os.utime(descriptor, (time.time(), time.time()))
    finally:
        os.close(descriptor)
    return BlockFile(os.open(data, os.O_RDWR | os.O_CLOEXEC), mapped, object_bytes)


@cache
def _cache(folder: Path, bound: int) -> BlockCache:
    return BlockCache(folder, bound)


def block_cache() -> BlockCache:
    """The cache by the environment: $PERMAFROST_CACHE/blocks of $PERMAFROST_CACHE_GB.

    Raises ValueError for a size that is no number.
    """
    folder = cache_folder() / "blocks"
    given = os.environ.get(SIZE_VARIABLE, "")
    if not given:
        return _default_cache(folder)
    try:
        bound = int(float(given) * 1e9)
    except (ValueError, OverflowError):
        bound = -1
    if bound < 0:
        raise ValueError(f"{SIZE_VARIABLE}={given}: expected gigabytes, such as 200; 0 keeps nothing")
    return _cache(folder, bound)


@cache
def _default_cache(folder: Path) -> BlockCache:
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    held = BlockCache(folder, 0).used_bytes
    return BlockCache(folder, min(DEFAULT_BYTES, (shutil.disk_usage(place).free + held) // 2))
