"""Digests of a shard file while it is being written.

Of the file: with the feature `chunk-digests` the SHA-256 over the SHA-256 of each of its chunks, in the order
of their rows, and that of its index, so that chunks are digested in parallel; in older stores the SHA-256 of
all its bytes. Of each row, with that feature: the SHA-256 of its decoded bytes, see
stores.shards.content_digest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cache, partial

Piece = memoryview | bytes
_PIECE_BYTES = 1 << 20  # 1 MiB: what is read back stays in the cache
_HANDED_OVER_BYTES = 128 << 10
"""128 KiB: digesting less takes no longer than waking a thread."""


@cache
def digest_threads() -> Executor:
    """The process's threads that digest chunks; hashlib frees the interpreter meanwhile."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), "chunk-digest")


class ChunkDigests:
    """SHA-256 of the chunks of one file, and of the bytes that they decode to."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._chunks: dict[int, bytes] = {}
        self.decoded: dict[int, bytes] = {}
        """SHA-256 of the decoded bytes by position, complete after `wait`."""
        self._running: list[Future[None]] = []

    def take_chunk(self, position: int, stored: Piece, crc: bytes, *, is_decoded: bool) -> None:
        """A stored chunk, which must not change until `wait` returns.

        Args:
            position: of its row in the file.
            stored: the chunk without its CRC32C.
            crc: the four bytes after it.
            is_decoded: whether the chunk is not compressed: both digests then are one pass.
        """
        self._start(len(stored), partial(self._digest_chunk, position, stored, crc, is_decoded))

    def take_decoded(self, position: int, data: Piece) -> None:
        """The bytes of a row whose chunk is compressed; they must not change until `wait` returns."""
        self._start(len(data), partial(self._digest_decoded, position, data))

    def _start(self, length: int, digest: Callable[[], None]) -> None:
        if length < _HANDED_OVER_BYTES:
            digest()
        else:
            self._running.append(self._threads.submit(digest))

    def _digest_chunk(self, position: int, stored: Piece, crc: bytes, is_decoded: bool) -> None:
        chunk = hashlib.sha256(stored)
        if is_decoded:
            self.decoded[position] = chunk.digest()
        chunk.update(crc)
        self._chunks[position] = chunk.digest()

    def _digest_decoded(self, position: int, data: Piece) -> None:
        self.decoded[position] = hashlib.sha256(data).digest()

    def wait(self, in_flight: int = 0) -> None:
        """Returns once all chunks so far are digested, but for this many at most."""
        while len(self._running) > in_flight:
            self._running.pop(0).result()

    def finish(self, index: bytes) -> str:
        """The digest of the file, in hex; `index` are its last bytes."""
        self.wait()
        return chunks_sha256((self._chunks[position] for position in sorted(self._chunks)), index)


def chunks_sha256(chunks: Iterable[bytes], index: bytes) -> str:
    """SHA-256 in hex over the SHA-256 of each stored chunk (32 bytes each) and that of the index."""
    total = hashlib.sha256()
    for digest in chunks:
        total.update(digest)
    total.update(hashlib.sha256(index).digest())
    return total.hexdigest()


class WrittenDigest:
    """Digests the pieces of a file as they are written, as long as they are consecutive.

    Anything after a gap is read back at the end. Digesting takes longer than writing to the page cache, so
    large pieces are digested in another thread.

    Args:
        thread: an executor of one thread, which keeps the pieces in their order.
    """

    def __init__(self, thread: Executor) -> None:
        self._thread, self._digest = thread, hashlib.sha256()
        self._end = 0
        """Digest of the consecutive bytes so far."""
        self._running: Future[None] | None = None

    def take(self, offset: int, pieces: Sequence[Piece]) -> None:
        """Adds the pieces written at this offset; they must not change until `wait` returns."""
        if offset != self._end:
            return
        length = sum(map(len, pieces))
        self._end += length
        if length < _HANDED_OVER_BYTES and self._running is None:
            self._update(pieces)
        else:
            self._running = self._thread.submit(self._update, pieces)

    def _update(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            self._digest.update(piece)

    def wait(self) -> None:
        """Returns once all pieces are digested."""
        if self._running is not None:
            self._running.result()
            self._running = None

    def finish(self, read: Callable[[int, int], bytes]) -> tuple[int, str]:
        """The length of the file and its SHA-256 in hex.

        Args:
            read: returns at most so many bytes from an offset of the file; none at its end.
        """
        self.wait()
        while piece := read(_PIECE_BYTES, self._end):
            self._digest.update(piece)
            self._end += len(piece)
        return self._end, self._digest.hexdigest()
