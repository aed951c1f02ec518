"""Digests of a shard file while it is being written.

Of the file: with the feature `chunk-digests` the SHA-256 over the digest of each of its chunks, in the order
of their rows, and the SHA-256 of its index, so that chunks are digested in parallel; in older stores the
SHA-256 of all its bytes. Of each row, with that feature: the digest of its decoded bytes, see
stores.shards.content_digest. These two digests are BLAKE3 with the feature `blake3`, else SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, Protocol

from blake3 import blake3

from stores.format.features import BLAKE3

Piece = memoryview | bytes
_PIECE_BYTES = 1 << 20  # 1 MiB: what is read back stays in the cache
_HANDED_OVER_BYTES = 128 << 10
"""128 KiB: digesting less takes no longer than waking a thread."""


class Hasher(Protocol):
    """What hashlib and blake3 make."""

    def update(self, data: Piece, /) -> Any: ...
    def digest(self) -> bytes: ...


Hash = Callable[[Piece], Hasher]
"""Begins with the first bytes; digests have 32 bytes."""


def hash_of(features: Collection[str]) -> Hash:
    """The hash of chunks and rows in a store with these features."""
    return blake3 if BLAKE3 in features else hashlib.sha256


class ChunkDigests:
    """Digests of the chunks of one file, and of the bytes that they decode to. Several threads may digest at
    once, each its own positions."""

    def __init__(self, hashed: Hash) -> None:
        self._hashed = hashed
        self._chunks: dict[int, bytes] = {}
        self.decoded: dict[int, bytes] = {}
        """Digests of the decoded bytes by position."""

    def take_chunk(self, position: int, stored: Piece, crc: bytes, *, is_decoded: bool) -> None:
        """A stored chunk.

        Args:
            position: of its row in the file.
            stored: the chunk without its CRC32C.
            crc: the four bytes after it.
            is_decoded: whether the chunk is not compressed: both digests then are one pass.
        """
        chunk = self._hashed(stored)
        if is_decoded:
            self.decoded[position] = chunk.digest()
        chunk.update(crc)
        self._chunks[position] = chunk.digest()

    def take_decoded(self, position: int, data: Piece) -> None:
        """The bytes of a row whose chunk is compressed."""
        self.decoded[position] = self._hashed(data).digest()

    def finish(self, index: bytes) -> str:
        """The digest of the file, in hex; `index` are its last bytes."""
        return chunks_sha256((self._chunks[position] for position in sorted(self._chunks)), index)


def chunks_sha256(chunks: Iterable[bytes], index: bytes) -> str:
    """SHA-256 in hex over the digest of each stored chunk (32 bytes each) and the SHA-256 of the index."""
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
