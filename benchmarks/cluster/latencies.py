"""Latencies of the steps of a worker that other workers see: claim, look, commit, list."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.scale import made_plan
from stores.work.claims import Claims
from stores.writing.writer import StoreWriter


@dataclass(frozen=True)
class Latencies:
    """Seconds."""

    claim_s: float
    """Taking and releasing a claim."""
    look_s: float
    """Whether a shard has a receipt."""
    commit_s: float
    """Of a shard whose rows are written: its files are on the disk, its receipt is created."""
    list_s: float
    """What is pending, of all shards."""


def measured(folder: Path, shards: int) -> Latencies:
    """Medians on the disk of `folder`; the list's grows with the number of shards, and is scaled to it."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        writer = StoreWriter.open_or_create(Path(place), made_plan(4096))
        pending = writer.pending()
        claims = Claims(writer.path)

        def claim(number: int) -> None:
            assert claims.take(f"made-{number}")
            claims.release(f"made-{number}")

        level = {"p5": {"q": np.ones((1, 1, 8), np.int8), "scale": np.ones(8, np.float32)}}
        commits = []
        for shard in pending[:32]:
            opened = writer.open_shard(shard)
            for row in opened.rows:
                opened.put(row, level, {}, source_sha256=bytes(32))
            began = time.perf_counter()
            opened.commit({}, {})
            commits.append(time.perf_counter() - began)
        some = pending[: len(commits)]
        return Latencies(
            claim_s=_median(claim, 200),
            look_s=_median(lambda number: writer.receipt(pending[-1]), 200),
            commit_s=statistics.median(commits),
            list_s=_median(lambda number: [writer.receipt(shard) for shard in some], 5) * shards / len(some),
        )


def _median(step: Callable[[int], object], times: int) -> float:
    taken = []
    for number in range(times):
        began = time.perf_counter()
        step(number)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
