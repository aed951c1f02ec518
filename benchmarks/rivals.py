"""Functions to compare, each in a process of its own: made and compiled side by side, then run in turns."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

WARM_UP_CALLS = 4
"""To compile, to fill caches, to grow pools, to record launches and to replay them."""

Times = tuple[float, float]
"""Seconds by the clock, and of this process's processors."""


def timed(function: Callable[[], object], device: torch.device) -> Times:
    """Of one call, until the device has done all of it."""
    began, used = time.perf_counter(), time.process_time()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, time.process_time() - used


class Rival:
    """A process that makes a function, warms up and waits for its turns. A context manager."""

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments: Any, device: str) -> None:
        """Args: make: of a module, called with the arguments in the process."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments, device), daemon=True)
        self._process.start()
        theirs.close()

    def wait(self, until: float) -> str | None:
        """Until it is ready, or `until` of time.monotonic() and ended. What is wrong where it is not."""
        if not self._pipe.poll(max(0.0, until - time.monotonic())):
            self._process.kill()
            return "not ready in time"
        try:
            problem: str | None = self._pipe.recv()
        except EOFError:
            self._process.join()
            return f"its process ended with exit code {self._process.exitcode}"
        return problem

    def turn(self) -> Times:
        """A call of its function, after one that only warms up: other rivals have had the caches."""
        self._pipe.send("turn")
        found: Times = self._pipe.recv()
        return found

    def peak_bytes(self) -> int:
        """Of the GPU's memory, in its turns so far."""
        self._pipe.send("peak")
        peak: int = self._pipe.recv()
        return peak

    def __enter__(self) -> Rival:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()


def _serve(
    pipe: Connection, make: Callable[..., Callable[[], object]], arguments: tuple[Any, ...], name: str
) -> None:
    device = torch.device(name)
    on_gpu = device.type == "cuda"
    try:
        function = make(*arguments)
        with torch.inference_mode():
            for _ in range(WARM_UP_CALLS):
                timed(function, device)
        if on_gpu:
            torch.cuda.empty_cache()  # the others need room for their own warming up
            torch.cuda.reset_peak_memory_stats()
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        return
    pipe.send(None)
    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        if asked == "peak":
            pipe.send(torch.cuda.max_memory_allocated() if on_gpu else 0)
            continue
        with torch.inference_mode():
            timed(function, device)
            pipe.send(timed(function, device))


def compare(
    turns: Mapping[str, Callable[[], Times]], images: int, rounds: int, warm_up: int = 1
) -> dict[str, dict[str, float]]:
    """Name -> ms an image (median, least, of processors) and speed relative to the first name, in turns.

    Args:
        turns: name -> one call of its function.
        images: of a call.
        warm_up: rounds that do not count.
    """
    found: dict[str, list[Times]] = {name: [] for name in turns}
    for number in range(rounds + warm_up):
        for name, turn in turns.items():
            times = turn()
            if number >= warm_up:
                found[name].append(times)
    first = [seconds for seconds, _ in next(iter(found.values()), [])]
    return {
        name: {
            "ms_an_image": statistics.median(seconds for seconds, _ in times) / images * 1e3,
            "least_ms_an_image": min(seconds for seconds, _ in times) / images * 1e3,
            "processor_ms_an_image": statistics.median(busy for _, busy in times) / images * 1e3,
            "speed": statistics.median(f / s for f, (s, _) in zip(first, times, strict=True)),
        }
        for name, times in found.items()
    }
