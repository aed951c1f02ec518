"""What a training step waits for: the loader alone beside others, and steps fed from a store beside steps on
one resident batch.

The loader reads random rows of SwinV2-B's int8 pyramids at 512 px, every CRC32C compared, up to where a GPU
would take them over. It stands beside a memory map, torch's DataLoader over zarr-python and, where it is
installed, litdata, on the same rows in the same minutes. Steps are those of a CPU at --side-px.

    python -m benchmarks.training.stream [--parts loader,cold,steps] [--size-gb 1] [--heads fpn,bifpn5,linear]
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from benchmarks.machine import conditions, print_conditions
from benchmarks.stores.read import Bench, memmap
from benchmarks.stores.read import permafrost as permafrost_rows
from benchmarks.stores.swinv2_b_store import plan_of, random_rows, write_store
from benchmarks.training.steps import CPU, PYRAMID, feed_of, seconds, step_of, write_random_store
from pipelines.feed.joined_stores import JoinedStores
from pipelines.feed.shard_read_ahead import ShardReadAhead
from pipelines.feed.store_feed import RING_SLOTS, StoreFeed
from stores.reading.reader import open_store
from stores.sampling import windowed_order

GOALS = {
    ("permafrost", "memmap", 1): 0.45,
    ("permafrost", "memmap", 2): 0.6,
    ("permafrost", "DataLoader over zarr-python", 1): 2.0,
    ("permafrost", "DataLoader over zarr-python", 2): 2.0,
    ("permafrost", "litdata", 1): 1.2,
    ("permafrost", "litdata", 2): 1.2,
}
"""Least ratios: of which loader, to which, with how many threads or workers."""


class _NoTargets:
    """A task without targets: features alone are compared."""

    training_targets = ()

    def head_targets(self, stored: Any) -> Any:
        return stored


class EncodedFeed(StoreFeed):
    """The feed up to the device: what comes after, dequantising, runs on it."""

    def __next__(self) -> Any:
        loaded = self._wait()
        self._free.put(loaded.slot)
        return loaded.encoded


Batches = Callable[[list[list[int]]], Iterator[Any]]
"""An iterator over the batches of these rows."""


def permafrost(bench: Bench, threads: int, batch: int, feed: type[StoreFeed] = EncodedFeed) -> Batches:
    stores = JoinedStores.open([bench.path], verify="always", threads=threads)

    def batches(rows: list[list[int]]) -> Iterator[Any]:
        task: Any = _NoTargets()
        asked = (np.array(each) for each in rows)
        reading = feed(stores, asked, batch_size=batch, levels=PYRAMID.names, task=task, device=CPU)
        yield from reading
        reading.close()

    return batches


def memory_map(bench: Bench, threads: int, batch: int) -> Batches:
    read = memmap(bench, threads, batch)
    return lambda rows: (read(each) for each in rows)


class _ZarrRows(torch.utils.data.Dataset[dict[str, np.ndarray[Any, Any]]]):
    def __init__(self, bench: Bench) -> None:
        self._bench, self._arrays = bench, {}

    def __getitem__(self, row: int) -> dict[str, np.ndarray[Any, Any]]:
        if not self._arrays:  # in the worker: what zarr-python keeps does not survive a fork
            self._arrays = {
                name: zarr.open_array(self._bench.path / spec.path, mode="r")
                for name, spec in self._bench.specs.items()
            }
        return {name: np.asarray(array[self._bench.rows[row]]) for name, array in self._arrays.items()}


def zarr_loader(bench: Bench, threads: int, batch: int) -> Batches:
    """As one would write it: a Dataset of rows, workers that read them, the default collation."""

    def batches(rows: list[list[int]]) -> Iterator[Any]:
        loader = torch.utils.data.DataLoader(_ZarrRows(bench), batch_sampler=rows, num_workers=threads)
        return iter(loader)

    return batches


def litdata_loader(bench: Bench, threads: int, batch: int, folder: Path) -> Batches:
    """A StreamingDataset of the same rows; it chooses their order itself, one like ours at random."""
    import litdata

    def batches(rows: list[list[int]]) -> Iterator[Any]:
        data = litdata.StreamingDataset(str(folder), shuffle=True)
        loader = litdata.StreamingDataLoader(data, batch_size=batch, num_workers=threads)
        return itertools.islice(iter(loader), len(rows))

    return batches


def write_litdata(bench: Bench, folder: Path) -> None:
    """The store's rows, one after another, as litdata keeps numpy arrays."""
    from litdata.streaming import Cache

    read = permafrost_rows(bench, 1, 1)  # not zarr-python, whose loop would not survive a worker's fork
    cache = Cache(str(folder), chunk_bytes="128MB")
    for number, row in enumerate(bench.rows):
        cache[number] = {name: array[0].copy() for name, array in read([row]).items()}
    cache.done()
    cache.merge()


def rate(bench: Bench, batches: Batches, rows: list[list[int]]) -> float:
    """GB/s over the batches after the first ones, which start threads or workers and touch new memory."""
    stream = batches(rows)
    for _ in range(RING_SLOTS + 1):
        next(stream)
    began, count = time.perf_counter(), 0
    for _ in stream:
        count += 1
    return count * len(rows[0]) * bench.row_bytes / (time.perf_counter() - began) / 1e9


def loader_rates(path: Path, options: argparse.Namespace) -> dict[int, dict[str, list[float]]]:
    """By threads and loader, GB/s in each round."""
    with open_store(path) as store:
        bench = Bench(store)
    for spec in bench.specs.values():
        for shard in range(spec.shards):
            (bench.path / spec.chunk_file(shard)).read_bytes()  # warms the cache
    litdata_folder = path.parent / "litdata"
    has_litdata = importlib.util.find_spec("litdata") is not None
    if has_litdata:
        write_litdata(bench, litdata_folder)
    generator, candidates = np.random.default_rng(0), np.array(list(bench.rows))
    found: dict[int, dict[str, list[float]]] = {}
    for threads in options.threads:
        loaders: dict[str, Batches] = {
            "memmap": memory_map(bench, threads, options.batch),
            "permafrost": permafrost(bench, threads, options.batch),
            "permafrost, dequantised on this CPU": permafrost(bench, threads, options.batch, StoreFeed),
            "DataLoader over zarr-python": zarr_loader(bench, threads, options.batch),
        }
        if has_litdata:
            loaders["litdata"] = litdata_loader(bench, threads, options.batch, litdata_folder)
        found[threads] = {name: [] for name in loaders}
        for _ in range(options.rounds):
            rows = [generator.choice(candidates, options.batch, replace=False).tolist() for _ in range(32)]
            for name, batches in loaders.items():
                slow = name.startswith(("DataLoader", "litdata"))
                found[threads][name].append(rate(bench, batches, rows[:10] if slow else rows))
    return found


def cold_rates(path: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """GB/s from the disk: rows at random places, and shards read forward into a window."""
    stores = JoinedStores.open([path], verify="always", threads=2)
    rows, shards = len(stores), stores.index.shards
    assert shards is not None
    scratch = stores.buffers(4, PYRAMID.names)
    row_bytes = sum(part.nbytes for parts in scratch.values() for part in parts.values()) / 4
    found: dict[str, list[float]] = {"at random": [], "forward": []}
    for number in range(options.rounds):
        _forget(path)
        at_random = np.random.default_rng(number).permutation(rows)
        read = lambda some: stores.read_encoded(some, PYRAMID.names, scratch)  # noqa: E731
        spent = seconds(lambda: [read(at_random[i : i + 4]) for i in range(0, rows - 3, 4)] and None)  # noqa: B023
        found["at random"].append((rows - rows % 4) * row_bytes / spent / 1e9)
        _forget(path)
        order = windowed_order(stores.index, shards, seed=0, epoch=number, window=rows // 4)
        as_read = order.rows[np.argsort(order.read_at)]
        began = time.perf_counter()
        ahead = ShardReadAhead(iter([as_read]), read, window=rows)
        ahead.wait_for(np.array([rows - 1]))
        found["forward"].append(rows * row_bytes / (time.perf_counter() - began) / 1e9)
        ahead.close()
    stores.close()
    return found


def _forget(path: Path) -> None:
    """Drops the store's files from the page cache."""
    for file in path.glob("bins/**/*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """Medians of one head, seconds a step."""

    resident: float
    fed: float
    ratio: float
    """The median over rounds, in each of which both had the same machine."""
    waited: float
    """Share of the fed steps' time spent waiting for a batch."""


def step_times(name: str, path: Path, options: argparse.Namespace) -> Steps:
    """Steps on one batch that stays, and on batches from the store, in turns."""
    stores, step = JoinedStores.open([path], verify="always", threads=2), step_of(name)
    resident = next(feed := feed_of(stores, options.step_batch))
    feed.close()
    step(resident)
    alone, fed, waited = [], [], []
    for _ in range(options.rounds):
        alone.append(seconds(lambda: [step(resident) for _ in range(options.steps)] and None) / options.steps)
        feed = feed_of(stores, options.step_batch)
        step(next(feed))
        before = feed.reading.waited_s
        fed.append(seconds(lambda: [step(next(feed)) for _ in range(options.steps)] and None) / options.steps)  # noqa: B023
        waited.append((feed.reading.waited_s - before) / options.steps / fed[-1])
        feed.close()
    stores.close()
    ratio = statistics.median(b / a for a, b in zip(alone, fed, strict=True))
    return Steps(
        resident=statistics.median(alone),
        fed=statistics.median(fed),
        ratio=ratio,
        waited=statistics.median(waited),
    )


def print_loaders(found: dict[int, dict[str, list[float]]]) -> None:
    print(f"\n{'loader':40}{'threads':>8}{'GB/s':>8}{'/ memmap':>10}")
    for threads, rates in found.items():
        for name, values in rates.items():
            of_memmap = ratio(rates, name, "memmap")
            print(f"{name:40}{threads:8}{statistics.median(values):8.2f}{of_memmap:10.2f}")
    for (name, other, threads), least in GOALS.items():
        if other in found.get(threads, {}):
            times = ratio(found[threads], name, other)
            verdict = "met" if times >= least else "MISSED"
            print(f"{name} / {other}, {threads} threads: {times:.2f}, goal {least}: {verdict}")


def ratio(rates: dict[str, list[float]], name: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(rates[name], rates[other], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", type=lambda t: t.split(","), default=["loader", "cold", "steps"])
    parser.add_argument("--folder", type=Path, help="where stores are made, and removed again")
    parser.add_argument("--size-gb", type=float, default=1.0, help="of the store of the loader's parts")
    parser.add_argument("--batch", type=int, default=16, help="rows of the loader's batches")
    parser.add_argument("--threads", type=lambda t: [int(n) for n in t.split(",")], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--heads", type=lambda t: t.split(","), default=["fpn", "bifpn5", "linear"])
    parser.add_argument("--side-px", type=int, default=256, help="of the views of the steps")
    parser.add_argument("--step-batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="in a round")
    parser.add_argument("--json", action="store_true", help="prints JSON instead of tables")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-stream-") as name:
        folder = Path(name)
        found["conditions"] = conditions(folder)
        if {"loader", "cold"} & set(options.parts):
            path = write_store(folder, plan_of(options.size_gb), random_rows())
            if "loader" in options.parts:
                found["loader"] = loader_rates(path, options)
            if "cold" in options.parts:
                found["cold"] = cold_rates(path, options)
        if "steps" in options.parts:
            path = write_random_store(folder / "labelled", 32, options.side_px)
            found["steps"] = {head: step_times(head, path, options) for head in options.heads}
    if options.json:
        print(json.dumps(found, default=lambda s: {f: getattr(s, f) for f in s.__slots__}))
        return
    print_conditions(found["conditions"])
    if "loader" in found:
        print_loaders(found["loader"])
    for how, values in found.get("cold", {}).items():
        print(f"cold, {how}: {statistics.median(values):.2f} GB/s")
    for head, times in found.get("steps", {}).items():
        print(
            f"{head}: resident {times.resident:.3f} s, fed {times.fed:.3f} s, ratio {times.ratio:.3f}, "
            f"waited {100 * times.waited:.2f} %"
        )


if __name__ == "__main__":
    main()
