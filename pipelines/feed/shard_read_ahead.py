"""Sequential read-ahead for disks with slow random reads, ahead of a shuffle window.

A thread reads rows in the order in which they lie on the disk and throws them away; what it read waits in
the page cache, where the batches, which show rows in the window's order, find it. The window is page cache,
which the kernel can reclaim: an evicted row is read again, slower but never wrong.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

logger = logging.getLogger(__name__)


class ShardReadAhead:
    """Reads `rows` in their order with `read`, at most `window` rows ahead of those shown.

    Args:
        rows: row numbers, a few at a time, as they are to be read.
        read: brings rows into the page cache; called in a thread.
        window: how many rows may have been read and not yet shown.
        at_once: how many are read in one call.
    """

    def __init__(
        self, rows: Iterator[Rows], read: Callable[[Rows], object], *, window: int, at_once: int = 4
    ) -> None:
        self._rows, self._read = rows, read
        self._window, self._at_once = max(window, at_once), at_once
        self._read_rows, self._shown_rows, self._asked_for = 0, 0, -1
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="shard-read-ahead", daemon=True)
        self._thread.start()

    def wait_for(self, read_at: Rows) -> None:
        """Returns when the rows that are read as numbers `read_at` of all have been.

        Also when reading ahead has failed: whoever reads the rows themselves will meet the same damage, and
        can name it.
        """
        last = int(read_at.max())
        with self._changed:
            self._asked_for = last  # whatever the window: it must not keep a batch waiting for ever
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended or self._read_rows > last)

    def shown(self, rows: int) -> None:
        """Says that so many more rows have been copied out of the window."""
        with self._changed:
            self._shown_rows += rows
            self._changed.notify_all()

    @property
    def waiting_rows(self) -> int:
        """Rows read and not yet shown."""
        return self._read_rows - self._shown_rows

    def close(self) -> None:
        """Stops the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            for some in self._pieces():
                with self._changed:
                    self._changed.wait_for(self._may_read)
                    if self._ended:
                        return
                try:
                    self._read(some)
                except Exception as error:  # whoever needs the rows meets it again, and can name them
                    logger.warning("read-ahead stopped: %s", error)
                    return
                with self._changed:
                    self._read_rows += len(some)
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _may_read(self) -> bool:
        has_room = self.waiting_rows + self._at_once <= self._window
        return self._ended or has_room or self._read_rows <= self._asked_for

    def _pieces(self) -> Iterator[Rows]:
        for epoch in self._rows:
            for start in range(0, len(epoch), self._at_once):
                yield epoch[start : start + self._at_once]
