"""Prefetching: the next items are made in a thread while the current one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")


class _Ended:
    """Follows the last item; carries what stopped the source early."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def read_ahead(source: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """The items of `source`, at most `depth` of them made before they are asked for.

    An error of the source is raised where its item would have come. The thread ends when this iterator is
    closed.

    >>> list(read_ahead(range(3), depth=1))
    [0, 1, 2]
    """
    ready: queue.Queue[Item | _Ended] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def fill() -> None:
        error: BaseException | None = None
        items = iter(source)
        try:
            for item in items:
                ready.put(item)
                if stop.is_set():
                    break
        except BaseException as caught:  # handed to the reader, which raises it
            error = caught
        finally:
            if isinstance(items, Generator):
                items.close()  # in the thread that ran it
        ready.put(_Ended(error))

    thread = threading.Thread(target=fill, name="read-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _Ended):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        while (
            thread.is_alive()
        ):  # empties the queue, so that a thread waiting to put wakes up and sees `stop`
            try:
                ready.get(timeout=0.05)
            except queue.Empty:
                continue
        thread.join()
