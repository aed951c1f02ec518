"""Reading a store over HTTP on loopback, beside obstore, the local disk and a batch that stays.

The server is a process of its own (benchmarks.stores.range_server) that answers S3 and plain HTTP from the
page cache, with a pause before each answer where one is asked for; client and server share the cores. Each
ratio is the median of rounds in which both sides take turns. Processor time is printed beside speeds: of the
client and, after the plus, of the server, in seconds for a gigabyte. A server near the time of a core is the
limit, and a machine with other work shows less than its cores could.

    python -m benchmarks.stores.remote [--gb 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import obstore

from benchmarks.machine import conditions, print_conditions, processor_seconds
from benchmarks.stores.range_server import serving
from benchmarks.stores.swinv2_b_store import plan_of, random_rows, write_store
from stores import open_store
from stores.reading.reader import Store

LEVELS = ("p4", "p5")
BATCH, AHEAD = 16, 4
BUCKET = "bucket"
PAUSE_S = 0.03


@dataclass(frozen=True)
class Rate:
    """Of one reading: MB/s, and processor seconds a GB of the client and of the server."""

    mb_s: float
    client: float
    server: float

    def __str__(self) -> str:
        return f"{self.mb_s:.0f} MB/s ({self.client:.2f} + {self.server:.2f} s of processor a GB)"


def timed(read: Callable[[], int]) -> Rate:
    began, own, all_of_them = time.perf_counter(), time.process_time(), processor_seconds()
    gigabytes = read() / 1e9
    own, all_of_them = time.process_time() - own, processor_seconds() - all_of_them
    seconds = time.perf_counter() - began
    return Rate(1e3 * gigabytes / seconds, own / gigabytes, max(0.0, all_of_them - own) / gigabytes)


def middle(rates: list[Rate]) -> Rate:
    return sorted(rates, key=lambda each: each.mb_s)[len(rates) // 2]


def batches(store: Store, seed: int) -> list[list[int]]:
    order = np.random.default_rng(seed).permutation(len(store)).tolist()
    return [order[start : start + BATCH] for start in range(0, len(order) - BATCH + 1, BATCH)]


def read_all(store: Store, seed: int, *, ahead: int = 0) -> int:
    """Every batch once in random order, as the feed of a training reads; returns the bytes."""
    out, total, waiting = store.buffers(BATCH, levels=LEVELS), 0, deque[list[int]]()
    for rows in [*batches(store, seed), *[[]] * ahead]:
        if rows:
            store.prefetch(rows, LEVELS)
            waiting.append(rows)
        if waiting and (not rows or len(waiting) > ahead):
            found = store.read_encoded(waiting.popleft(), LEVELS, out)
            total += sum(array.nbytes for kinds in found.values() for array in kinds.values())
    return total


def read_ranges(store: Store, client: object, prefix: str, seed: int) -> int:
    """The same ranges of codes by obstore alone, a call a shard and level."""
    shard_rows, total = store.plan.bins[0].shard_rows, 0
    for rows in batches(store, seed):
        for level in LEVELS:
            size = int(np.prod(store.buffers(1, levels=(level,))[level]["q"].shape)) + 4
            for shard in sorted({row // shard_rows for row in rows}):
                places = [row % shard_rows * size for row in rows if row // shard_rows == shard]
                path = f"{prefix}/bins/512x512/levels/{level}/q/c.{shard}.0.0.0"
                found = obstore.get_ranges(
                    client, path, starts=places, lengths=[size] * len(places), coalesce=0
                )
                total += sum(len(data) for data in found)
    return total


def in_turns(
    first: Callable[[int], int], second: Callable[[int], int], rounds: int
) -> tuple[Rate, Rate, float]:
    """Two ways to read the same rows: the medians of both, and the median of the ratios of each round.

    Args:
        first, second: read the rows of a seed and return the bytes.
    """
    found: tuple[list[Rate], list[Rate]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            found[which].append(timed(partial((first, second)[which], number)))
    ratios = (one.mb_s / other.mb_s for one, other in zip(*found, strict=True))
    return middle(found[0]), middle(found[1]), statistics.median(ratios)


def over_s3(path: Path, rounds: int) -> None:
    """Rows that are not kept, beside get_ranges on the same ranges."""
    os.environ["PERMAFROST_CACHE_GB"] = "0"
    with serving(path.parents[1], 0) as url:
        os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        client = obstore.store.from_url(
            f"s3://{BUCKET}", endpoint=url, region="us-east-1", client_options={"allow_http": True}
        )
        with open_store(f"s3://{BUCKET}/{path.name}") as store:
            read_all(store, 0)  # opens every shard
            rows, ranges, ratio = in_turns(
                partial(read_all, store), partial(read_ranges, store, client, path.name), rounds
            )
    print(f"S3, rows that are not kept: {rows}\nS3, obstore.get_ranges: {ranges}")
    print(f"rows / get_ranges: {ratio:.2f} (0.7 wanted)\n", flush=True)


def first_epochs(path: Path, rounds: int, folder: str) -> None:
    """The epoch that fills the cache, with and without a pause before each answer."""
    os.environ["PERMAFROST_CACHE_GB"] = "50"
    found: dict[float, list[Rate]] = {0: [], PAUSE_S: []}
    for number in range(rounds):
        for pause_s, rates in found.items():
            with tempfile.TemporaryDirectory(dir=folder) as cache, serving(path.parent, pause_s) as url:
                os.environ["PERMAFROST_CACHE"] = cache
                with open_store(f"{url}/{path.name}") as store:
                    rates.append(timed(partial(read_all, store, number, ahead=AHEAD)))
    print(f"first epoch: {middle(found[0])}\nfirst epoch, 30 ms a request: {middle(found[PAUSE_S])}")
    print(f"p4 and p5 at 30 ms: {middle(found[PAUSE_S]).mb_s:.0f} MB/s (200 wanted)\n", flush=True)


def filled_cache(path: Path, rounds: int, folder: str) -> None:
    """Later epochs, beside the local store."""
    os.environ["PERMAFROST_CACHE"] = f"{folder}/filled"
    with (
        serving(path.parent, 0) as url,
        open_store(f"{url}/{path.name}") as kept,
        open_store(path) as local,
    ):
        for store in (kept, local):
            read_all(store, 0, ahead=AHEAD)
        filled, disk, ratio = in_turns(partial(read_all, kept), partial(read_all, local), 2 * rounds)
    print(f"filled cache: {filled}\nlocal store: {disk}")
    print(f"filled cache / local: {ratio:.2f} (0.9 wanted)\n", flush=True)


def fed(folder: str, rounds: int) -> None:
    """Steps of a linear head over a server of 30 ms, once the cache is filled."""
    # Late: torch, which no other part needs, takes memory and seconds.
    import torch

    from benchmarks.training.steps import CPU, feed_of, seconds, step_of, write_random_store
    from pipelines.feed.joined_stores import JoinedStores

    path = write_random_store(Path(folder) / "fed", rows=32, side_px=256)
    torch.set_num_threads(1)
    os.environ["PERMAFROST_CACHE"] = f"{folder}/fed-cache"
    with serving(path.parent, PAUSE_S) as url:
        stores = JoinedStores([open_store(f"{url}/{path.name}")])
        step = step_of("linear")
        for _ in range(2):  # the epochs that fill the cache
            for batch in (feed := feed_of(stores, 2, count=32)):
                resident = batch
            feed.close()
        step(resident)
        ratios = []
        for number in range(rounds):
            ways = [lambda: [step(resident) for _ in range(6)] and None]
            feed = feed_of(stores, 2)
            step(next(feed))
            ways.append(lambda: [step(next(feed)) for _ in range(6)] and None)  # noqa: B023
            order = (0, 1) if number % 2 else (1, 0)
            taken = dict(zip(order, (seconds(ways[which], CPU) for which in order), strict=True))
            ratios.append(taken[1] / taken[0])
            feed.close()
        stores.close()
    print(f"linear, fed / resident: {statistics.median(ratios):.3f} (at most 1.1 wanted)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0, help="size of the store with all levels")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_conditions(conditions(Path(folder)))
        path = write_store(Path(folder) / BUCKET, plan_of(given.gb), random_rows())
        over_s3(path, given.rounds)
        first_epochs(path, given.rounds, folder)
        filled_cache(path, given.rounds, folder)
        fed(folder, 2 * given.rounds)


if __name__ == "__main__":
    main()
