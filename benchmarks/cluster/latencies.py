"""Latencies of the steps of a worker that other workers see, measured on a disk with so many at work."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stores.format.plan import StorePlan
from stores.work.claims import Claims
from stores.writing.writer import StoreWriter

LEVEL = {"p5": {"q": np.ones((1, 1, 8), np.int8), "scale": np.ones(8, np.float32)}}
"""Of a row of the made plans."""
_MOST_TIMED = 32
"""Shards that each process commits."""
_SLEPT_S = 0.05


@dataclass(frozen=True)
class Latencies:
    """Seconds, means: sums of them are what counts."""

    claim_s: float
    """Taking and releasing a claim."""
    look_s: float
    """Whether a shard has a receipt, of one that has none."""
    seen_s: float
    """The same of one that has."""
    commit_s: float
    """Of a shard of few bytes, from its opening: its files are on the disk, its receipt is created."""
    list_s: float
    """What is pending, of all shards, when none is done."""
    late_s: float = 0.0
    """How much later than asked a sleeping process continues; no part of an extraction."""


def commit_made(writer: StoreWriter, shard: Any) -> None:
    """Writes a shard of a made plan."""
    opened = writer.open_shard(shard)
    for row in opened.rows:
        opened.put(row, LEVEL, {}, source_sha256=bytes(32))
    opened.commit({}, {})


def measured(folder: Path, plan: StorePlan, processes: int = 1) -> Latencies:
    """On the disk of `folder`, in a store of this plan, while `processes` do the same at once."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        StoreWriter.open_or_create(Path(place), plan)
        context = multiprocessing.get_context("spawn")
        ready, found = context.Barrier(processes), context.Queue()
        running = [
            context.Process(target=_measure, args=(place, plan, number, processes, ready, found))
            for number in range(processes)
        ]
        for process in running:
            process.start()
        taken = [found.get() for _ in running]
        for process in running:
            process.join()
    return mean_of(*(Latencies(*each) for each in taken))


def _measure(place: str, plan: StorePlan, number: int, processes: int, ready: Any, found: Any) -> None:
    """The steps in the order of a worker, each timed by itself."""
    writer = StoreWriter.open_or_create(Path(place), plan)
    claims = Claims(writer.path)
    ready.wait()
    began = time.perf_counter()
    shards = writer.pending()
    list_s = time.perf_counter() - began
    unfinished, own = shards[-1], shards[:-1][number::processes][:_MOST_TIMED]
    steps: dict[str, Callable[[Any], object]] = {
        "look_s": lambda _: writer.receipt(unfinished),
        "claim_s": lambda shard: (claims.take(f"made-{shard}"), claims.release(f"made-{shard}")),
        "late_s": lambda _: time.sleep(_SLEPT_S),
        "commit_s": lambda shard: commit_made(writer, shard),
        "seen_s": writer.receipt,
    }
    taken = dict.fromkeys(steps, 0.0)
    ready.wait()
    for shard in own:
        for name, step in steps.items():
            began = time.perf_counter()
            step(shard)
            taken[name] += (time.perf_counter() - began) / len(own)
    taken["late_s"] -= _SLEPT_S
    found.put(astuple(Latencies(list_s=list_s, **taken)))


def mean_of(*several: Latencies) -> Latencies:
    return Latencies(*(statistics.mean(each) for each in zip(*map(astuple, several), strict=True)))
