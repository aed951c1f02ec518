"""Images in parallel on a CPU, one thread each; idle threads help with pieces of an image.

A matrix product rounds differently when another number of threads shares its work (SwinV2-T's p5 differs
between one and two). Here torch uses one thread everywhere, and an image is cut into the same pieces however
many threads there are: a row's bytes depend on neither the thread count nor the other images, and the tensors
of a piece stay in one core's cache.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def map_images(function: Callable[[T], R], images: Sequence[T]) -> list[R]:
    """`function` of each, in order, by as many threads as torch has in the caller; the first error is raised.

    >>> map_images(lambda x: (x + 1, torch.get_num_threads()), [1, 2, 3])
    [(2, 1), (3, 1), (4, 1)]
    """
    return _image_threads(os.getpid(), torch.get_num_threads()).map(function, images)


def share(function: Callable[[T], object], pieces: Iterable[T]) -> None:
    """`function` of each piece of an image, in any order; the first error is raised.

    Within `map_images` the threads that have no image help. Elsewhere the caller does all.

    >>> done = []
    >>> share(done.append, [1, 2, 3]); done
    [1, 2, 3]
    """
    threads: _ImageThreads | None = getattr(_here, "threads", None)
    todo = deque(pieces)
    helpers = [] if threads is None else threads.idle(len(todo) - 1, _work, function, todo)
    try:
        _work(function, todo)
    finally:
        todo.clear()  # after an error all threads stop
        for helper in helpers:
            if not helper.cancel():
                helper.result()


def _work(function: Callable[[T], object], todo: deque[T]) -> None:
    while todo:
        try:
            piece = todo.popleft()
        except IndexError:  # another thread took the last one
            return
        function(piece)


_here = threading.local()
"""`threads`: those the current one belongs to."""


class _ImageThreads:
    """A pool whose threads run torch single-threaded, and its number of unfinished images."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads, self._images, self._lock = threads, 0, threading.Lock()
        self._pool = ThreadPoolExecutor(threads, name, initializer=self._begin)
        all_started = threading.Barrier(threads + 1)
        waiting = [self._pool.submit(all_started.wait) for _ in range(threads)]
        all_started.wait()
        for future in waiting:
            future.result()
        # set_num_threads also changes what future threads start with: restore it for those outside the pool.
        torch.set_num_threads(threads)

    def _begin(self) -> None:
        _here.threads = self
        torch.set_num_threads(1)
        # A thread adopts the process-wide number when it first reads it: read it now, while that is 1.
        torch.get_num_threads()

    def map(self, function: Callable[[T], R], images: Sequence[T]) -> list[R]:
        self._count(len(images))
        futures = [self._pool.submit(function, image) for image in images]
        for future in futures:
            future.add_done_callback(lambda _: self._count(-1))
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _count(self, images: int) -> None:
        with self._lock:
            self._images += images

    def idle(self, most: int, work: Callable[..., None], *arguments: object) -> list[Future[None]]:
        """Submits `work` to threads without an image, at most `most` of them."""
        count = min(self._threads - self._images, most)
        inference = torch.is_inference_mode_enabled()  # thread-local
        return [self._pool.submit(_in_mode, inference, work, *arguments) for _ in range(count)]


def _in_mode(inference: bool, work: Callable[..., None], *arguments: object) -> None:
    with torch.inference_mode(inference):
        work(*arguments)


@lru_cache(maxsize=4)
def _image_threads(process: int, threads: int) -> _ImageThreads:
    """Args: process: its id, because a fork inherits no running threads."""
    return _ImageThreads(threads, f"images-{process}")
