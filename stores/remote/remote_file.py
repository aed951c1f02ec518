"""An object of a store, read by absolute ranges: streamed, or through blocks that are kept.

The ETag that comes with the first range is demanded of every later one, so that an object that is replaced
meanwhile raises. That the bytes are those of the store is proved by its checksums.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import numpy as np

from stores.errors import ChangedObject, IntegrityError, RemoteError
from stores.format.bounded_files import OpenFile
from stores.remote.block_cache import BLOCK_BYTES, BlockFile
from stores.remote.object_client import ObjectClient
from stores.shards.shard_index import crc32c

FETCHES = 24
"""Requests at once: at 30 ms each, blocks of 4 MiB make 3 GB/s."""
BLOCKS_AHEAD = 4
"""Of a file that is read forward."""
AHEAD_BYTES = 8 << 20
"""8 MiB: read at once of a file that is read forward and not kept."""
_BEYOND_ITS_END = 416
"""HTTP status of a range that an object does not have."""


@cache
def _fetch_threads(_: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(FETCHES, thread_name_prefix="store-fetch")


def fetch_threads() -> ThreadPoolExecutor:
    """The process's threads that wait for servers; others after a fork."""
    return _fetch_threads(os.getpid())


class RemoteObject:
    """An object and its ETag; thread-safe.

    Args:
        what: names it in errors.
        expected_bytes: its size, where that is known; another one raises IntegrityError.
    """

    def __init__(self, client: ObjectClient, key: str, what: str, expected_bytes: int | None = None) -> None:
        self._client, self._key, self.what = client, key, what
        self._etag: str | None = None
        self._is_seen = False
        self._lock = threading.Lock()
        self.object_bytes = expected_bytes
        """None: known once a range was read."""

    def fetch(self, start: int, stop: int) -> memoryview:
        """Bytes start..stop-1, fewer at the end.

        Raises IntegrityError where the object is missing, ChangedObject, RemoteError.
        """
        with self._own_words(start):
            found = self._client.read_range(self._key, start, stop, etag=self._etag)
        self._is_same(found.object_bytes, found.etag)
        return found.data

    def hand_on(self, start: int, stop: int, take: Callable[[int, memoryview], None]) -> None:
        """The same, piece by piece.

        Args:
            take: as ObjectClient.pass_range.
        """
        with self._own_words(start):
            object_bytes, etag = self._client.pass_range(self._key, start, stop, take, etag=self._etag)
        self._is_same(object_bytes, etag)

    @contextmanager
    def _own_words(self, start: int = 0) -> Iterator[None]:
        """Errors of a request for bytes from `start` that show damage."""
        try:
            yield
        except FileNotFoundError:
            raise IntegrityError(f"{self.what} is missing") from None
        except RemoteError as error:
            if error.status == _BEYOND_ITS_END:
                raise IntegrityError(f"{self.what} ends before byte {start}") from None
            raise

    def _is_same(self, object_bytes: int, etag: str | None) -> None:
        """Compares what came with a range with what came with the first one. Several may be under way
        before that one has arrived, without a condition."""
        with self._lock:
            if not self._is_seen:
                self._is_seen, self._etag = True, etag
                self.object_bytes = object_bytes if self.object_bytes is None else self.object_bytes
        if object_bytes != self.object_bytes:
            raise IntegrityError(f"{self.what} has {object_bytes} bytes, expected {self.object_bytes}")
        if etag != self._etag:
            raise ChangedObject(f"{self.what} was replaced while it was read (another ETag); open it again")

    def look(self) -> int:
        """Its size in bytes, asked for without reading. Raises as `fetch`."""
        with self._own_words():
            object_bytes, etag = self._client.head(self._key)
        self._is_same(object_bytes, etag)
        return object_bytes


class StreamedFile(OpenFile):
    """Nothing is kept but the piece that is read ahead of a forward reader."""

    __slots__ = ("_ahead", "_ahead_at", "_end", "_object")

    def __init__(self, source: RemoteObject) -> None:
        super().__init__(-1, 0)  # first: what fails below still has its fields
        self.size = source.look() if source.object_bytes is None else source.object_bytes
        self._object = source
        self._ahead, self._ahead_at, self._end = memoryview(b""), 0, -1

    def read(self, length: int, offset: int) -> bytes:
        stop = min(offset + length, self.size)
        if stop <= offset:
            return b""
        ahead, at = self._ahead, self._ahead_at  # one look: other threads replace them
        if at <= offset and stop <= at + len(ahead):
            self._end = stop
            return bytes(ahead[offset - at : stop - at])
        is_forward, self._end = offset == self._end, stop
        if not is_forward:
            return bytes(self._object.fetch(offset, stop))
        found = self._object.fetch(offset, min(max(stop, offset + AHEAD_BYTES), self.size))
        self._ahead, self._ahead_at = found, offset
        return bytes(found[: stop - offset])

    def view(self, length: int, offset: int) -> memoryview:
        """At most `length` bytes from `offset` as they arrived, without a copy."""
        stop = min(offset + length, self.size)
        return self._object.fetch(offset, stop) if offset < stop else memoryview(b"")

    def read_into(self, out: memoryview, offset: int) -> int:
        if offset >= self.size:
            return 0
        return copied(self._object.fetch(offset, min(offset + len(out), self.size)), out)


def copied(data: memoryview, out: memoryview) -> int:
    """Copies the bytes to the beginning of `out`, without the interpreter's lock; returns how many."""
    np.copyto(np.frombuffer(out, np.uint8)[: len(data)], np.frombuffer(data, np.uint8))
    return len(data)


class _NotKept(Exception):
    """The cache's disk took no more."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class CachedFile(OpenFile):
    """Reads through blocks, which are fetched when they are first needed.

    Args:
        source: the object. Where its size is known, opening asks nothing of the server.
        blocks: opens the blocks of an object of this size, again where they were removed; for None those
            that are there, or None.
        kept: called with the bytes of each block that was kept.
        refused: called where a block could not be kept; from then on the file is read as a StreamedFile is.
    """

    __slots__ = (
        "_blocks",
        "_fetching",
        "_kept",
        "_last",
        "_lock",
        "_object",
        "_open",
        "_refused",
        "_streams",
    )

    def __init__(
        self,
        source: RemoteObject,
        blocks: Callable[[int | None], BlockFile | None],
        kept: Callable[[int], None],
        refused: Callable[[OSError], None],
    ) -> None:
        super().__init__(-1, 0)  # first: what fails below still has its fields
        self._object, self._open, self._kept, self._refused = source, blocks, kept, refused
        self._lock = threading.Lock()
        self._fetching: dict[int, Future[None]] = {}
        self._last, self._streams = -2, False
        found = blocks(source.object_bytes) or blocks(source.look())
        assert found is not None
        self._blocks, self.size = found, found.object_bytes
        source.object_bytes = found.object_bytes

    def missing(self, offset: int, length: int) -> Iterator[int]:
        """The blocks of these bytes that are not here yet."""
        has = self._blocks.has
        if self._streams:
            return
        for block in range(offset // BLOCK_BYTES, -(-min(offset + length, self.size) // BLOCK_BYTES)):
            if not has(block):
                yield block

    def has(self, offset: int, length: int) -> bool:
        """Whether these bytes are here: the quick answer of a filled cache."""
        has, last = self._blocks.has, (offset + length - 1) // BLOCK_BYTES
        return has(offset // BLOCK_BYTES) and all(map(has, range(offset // BLOCK_BYTES + 1, last + 1)))

    def start(self, offset: int, length: int) -> None:
        """Starts to fetch what is missing of these bytes; errors are met by whoever reads."""
        for block in self.missing(offset, length):
            self.fetch(block)

    def fetch(self, block: int) -> Future[None]:
        """Starts to fetch a block, unless that has begun; the result raises as RemoteObject.fetch."""
        with self._lock:
            running = self._fetching.get(block)
            if running is None:
                running = self._fetching[block] = fetch_threads().submit(self._fetch, block)
            return running

    def _fetch(self, block: int) -> None:
        try:
            if self._blocks.has(block):
                return
            if self._blocks.is_removed:  # to make room: what is kept from here on shall count
                self._blocks = self._open(self.size) or self._blocks
            self._keep(self._blocks, block)
        finally:
            with self._lock:
                self._fetching.pop(block, None)

    def _keep(self, blocks: BlockFile, block: int) -> None:
        """Writes a block piece by piece while it arrives."""
        start, stop = blocks.bounds(block)
        crc = 0

        def take(at: int, piece: memoryview) -> None:
            nonlocal crc
            try:
                blocks.put(block, at, piece)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
                    raise
                raise _NotKept(error) from None
            crc = crc32c(piece, crc if at else 0)

        try:
            self._object.hand_on(start, stop, take)
        except _NotKept as stopped:
            self._streams = True
            self._refused(stopped.error)
            return
        blocks.keep(block, crc)
        self._kept(stop - start)

    def ensure(self, offset: int, length: int) -> None:
        """Returns once these bytes are here. Raises as RemoteObject.fetch."""
        wanted = list(self.missing(offset, length))
        if not wanted:
            return
        running = [self.fetch(block) for block in wanted]
        if wanted[0] == self._last + 1:  # a forward reader
            beyond = range(wanted[-1] + 1, min(wanted[-1] + 1 + BLOCKS_AHEAD, self._blocks.blocks))
            for block in beyond:
                if not self._blocks.has(block):
                    self.fetch(block)
        self._last = wanted[-1]
        for each in running:
            each.result()

    def drop_damaged(self, offset: int, length: int) -> bool:
        """Forgets those of these bytes that the local disk has damaged; returns whether there were any."""
        blocks = range(offset // BLOCK_BYTES, -(-min(offset + length, self.size) // BLOCK_BYTES))
        return sum(self._blocks.drop_damaged(block) for block in blocks) > 0

    def read(self, length: int, offset: int) -> bytes:
        self.ensure(offset, length)
        if self._streams:
            return bytes(self._object.fetch(offset, min(offset + length, self.size)))
        return os.pread(self._blocks.fd, length, offset)

    def read_into(self, out: memoryview, offset: int) -> int:
        if offset + len(out) <= self.size and self.has(offset, len(out)):
            return os.preadv(self._blocks.fd, [out], offset)
        self.ensure(offset, len(out))
        if self._streams:
            return copied(self._object.fetch(offset, min(offset + len(out), self.size)), out)
        return os.preadv(self._blocks.fd, [out], offset)
