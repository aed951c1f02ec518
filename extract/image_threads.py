"""Work on images side by side on a CPU, each image in one thread from beginning to end.

A matrix product rounds differently when another number of threads shares its work (SwinV2-T's p5 differs
between one and two). With one thread an image, a row's bytes depend on neither the thread count nor the
other images, and the tensors of an image stay in one core's cache.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    return list(_single_threaded_pool(os.getpid(), torch.get_num_threads()).map(function, images))


@lru_cache(maxsize=4)
def _single_threaded_pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads in which torch uses no others. `process`: a fork starts its own, it inherits none that run."""
    pool = ThreadPoolExecutor(threads, f"images-{process}", initializer=_use_one_thread)
    all_started = threading.Barrier(threads + 1)
    waiting = [pool.submit(all_started.wait) for _ in range(threads)]
    all_started.wait()
    for future in waiting:
        future.result()
    # set_num_threads also sets what threads yet to come start with; only those of the pool are meant.
    torch.set_num_threads(threads)
    return pool


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    # A thread's first look takes over the number of the whole process: have it look now, while that is 1.
    torch.get_num_threads()
