"""The SHA-256 of a file while it is being written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future

Piece = memoryview | bytes
_PIECE_BYTES = 1 << 20  # 1 MiB: what is read back stays in the cache
_HANDED_OVER_BYTES = 128 << 10
"""128 KiB: digesting less takes no longer than waking a thread."""


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
