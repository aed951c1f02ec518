"""How fast training reads a store, beside what else could read the same files in the same minute.

Batches of random rows, every level's q and scale. Ours checks the CRC32C of each and fills buffers that are
used again. A memory map is copied into such buffers; zarr-python and tensorstore make their own arrays. The
cache is warm. Readers take turns, and medians over the rounds are printed.

    python -m benchmarks.stores.read [--size-gb 1] [--path STORE] [--threads 1,2] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import zarr

from benchmarks.machine import conditions, print_conditions
from benchmarks.stores.swinv2_b_store import plan_of, random_rows, write_store
from stores.codecs import codec
from stores.format.arrays import sharded_arrays
from stores.reading.array_reader import Verify
from stores.reading.reader import Store, open_store

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
"""q and scale of every level for a batch, by the array's path in the store."""
Read = Callable[[list[int]], Arrays]
GOALS = {("permafrost", "memmap", 1): 0.45, ("permafrost", "memmap", 2): 0.6, ("permafrost", "zarr", 1): 6.0}
"""Least ratios: of which reader, to which, with how many threads."""


class Bench:
    """The written rows of a store's largest bin, and its level arrays."""

    def __init__(self, store: Store) -> None:
        plan = store.plan
        index = max(range(len(plan.bins)), key=lambda i: plan.bins[i].rows)
        self.path, self.bin, self.codec = store.path, plan.bins[index], codec(plan.codec)
        self.specs = {
            name: spec for name, spec in sharded_arrays(plan, index).items() if name.startswith("levels/")
        }
        local = {
            (plan.rows.keys[row], int(plan.rows.view[row])): number
            for number, row in enumerate(plan.bin_rows[index].tolist())
        }
        names = zip(store.keys, store.views.tolist(), store.bins, strict=True)
        self.rows = {row: local[key, view] for row, (key, view, b) in enumerate(names) if b == self.bin.name}
        """The place in the bin of each row of the store."""
        self.row_bytes = sum(spec.row_bytes for spec in self.specs.values())

    def empty(self, rows: int) -> Arrays:
        return {name: np.empty((rows, *spec.row_shape), spec.dtype) for name, spec in self.specs.items()}


def permafrost(bench: Bench, threads: int, batch: int, verify: Verify = "always") -> Read:
    """`read_encoded` into buffers that are used again."""
    store = open_store(bench.path, threads=threads, verify=verify)
    buffers = store.buffers(batch, bench.bin.name)

    def read(rows: list[int]) -> Arrays:
        found = store.read_encoded(rows, out=buffers)
        return {f"levels/{level}/{kind}": array for level, e in found.items() for kind, array in e.items()}

    return read


def memmap(bench: Bench, threads: int, batch: int) -> Read:
    """The shard files mapped, each row copied into buffers that are used again; nothing is checked."""
    maps = {
        (name, shard): np.memmap(bench.path / spec.chunk_file(shard), np.uint8, "r")
        for name, spec in bench.specs.items()
        for shard in range(spec.shards)
    }
    for mapped in maps.values():
        mapped[::4096].max()  # its pages are there before the clock runs
    buffers, pool = bench.empty(batch), ThreadPoolExecutor(threads)
    flat = {name: array.reshape(batch, -1).view(np.uint8) for name, array in buffers.items()}

    def copy(at: int, row: int) -> None:
        for name, spec in bench.specs.items():
            shard, position = divmod(row, spec.shard_rows or 1)
            start = position * spec.stored_row_bytes
            flat[name][at] = maps[name, shard][start : start + spec.row_bytes]

    def read(rows: list[int]) -> Arrays:
        local = [bench.rows[row] for row in rows]
        if threads == 1:
            for at, row in enumerate(local):
                copy(at, row)
        else:
            list(pool.map(copy, range(len(local)), local))
        return buffers

    return read


def zarr_python(bench: Bench, threads: int, batch: int) -> Read:
    """`array[row]`, which is faster than its selections of many rows."""
    arrays = {name: zarr.open_array(bench.path / spec.path, mode="r") for name, spec in bench.specs.items()}
    pool = ThreadPoolExecutor(threads)

    def read_rows(name: str, local: list[int]) -> Array:
        return np.stack([arrays[name][row] for row in local])

    def read(rows: list[int]) -> Arrays:
        local = [bench.rows[row] for row in rows]
        run = map if threads == 1 else pool.map
        return dict(zip(arrays, run(partial(read_rows, local=local), arrays), strict=True))

    return read


def tensorstore_(bench: Bench, threads: int, batch: int) -> Read:
    """All arrays of a batch asked for at once, with as many threads."""
    limits = {name: {"limit": threads} for name in ("data_copy_concurrency", "file_io_concurrency")}
    context = tensorstore.Context(limits)
    arrays = {
        name: tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{bench.path / spec.path}/"}},
            context=context,
            open=True,
            read=True,
        ).result()
        for name, spec in bench.specs.items()
    }

    def read(rows: list[int]) -> Arrays:
        local = [bench.rows[row] for row in rows]
        pending = {name: array[local].read() for name, array in arrays.items()}
        return {name: future.result() for name, future in pending.items()}

    return read


READERS: dict[str, Callable[[Bench, int, int], Read]] = {
    "memmap": memmap,
    "permafrost": permafrost,
    "permafrost, unchecked": partial(permafrost, verify="off"),
    "tensorstore": tensorstore_,
    "zarr": zarr_python,
}


def assert_equal(readers: dict[str, Read], rows: list[int]) -> None:
    """All readers return the same numbers: what is compared is the same work."""
    first = {name: array.copy() for name, array in next(iter(readers.values()))(rows).items()}
    for name, read in readers.items():
        for path, array in read(rows).items():
            if not np.array_equal(array, first[path]):
                raise SystemExit(f"{name} reads other numbers from {path} than {next(iter(readers))}")


def rates(bench: Bench, threads: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """GB/s of each reader in each round."""
    generator = np.random.default_rng(0)
    readers = {name: make(bench, threads, options.batch) for name, make in READERS.items()}
    candidates = np.array(list(bench.rows))
    assert_equal(readers, generator.choice(candidates, options.batch, replace=False).tolist())
    found: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(options.rounds):
        drawn = [
            generator.choice(candidates, options.batch, replace=False).tolist()
            for _ in range(options.batches)
        ]
        for name, read in readers.items():
            some = drawn if name != "zarr" else drawn[: max(1, options.batches // 8)]  # it takes as long
            started = time.perf_counter()
            for rows in some:
                read(rows)
            seconds = time.perf_counter() - started
            found[name].append(len(some) * options.batch * bench.row_bytes / seconds / 1e9)
    return found


def dequantisation(bench: Bench, options: argparse.Namespace) -> float:
    """GB/s of stored bytes through the numpy decoder, which a training job runs on its device instead."""
    arrays = permafrost(bench, 1, options.batch)(list(bench.rows)[: options.batch])
    found = []
    for _ in range(options.rounds):
        started = time.perf_counter()
        for name in bench.specs:
            if name.endswith("/q"):
                bench.codec.decode({"q": arrays[name], "scale": arrays.get(name.removesuffix("q") + "scale")})
        found.append(options.batch * bench.row_bytes / (time.perf_counter() - started) / 1e9)
    return statistics.median(found)


def ratio(found: dict[str, list[float]], name: str, other: str) -> float:
    """The median over rounds, in each of which both had the same machine."""
    return statistics.median(a / b for a, b in zip(found[name], found[other], strict=True))


@contextmanager
def store_to_read(options: argparse.Namespace) -> Iterator[Path]:
    if options.path is not None:
        yield options.path
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-read-") as folder:
        yield write_store(Path(folder), plan_of(options.size_gb), random_rows())


def measure(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    with open_store(path) as store:
        bench = Bench(store)
    for spec in bench.specs.values():
        for shard in range(spec.shards):
            (bench.path / spec.chunk_file(shard)).read_bytes()  # warms the cache
    found: dict[str, Any] = {
        "conditions": conditions(path),
        "store": f"{len(bench.rows)} rows of {bench.row_bytes / 1e6:.2f} MB, {bench.bin.shard_rows} a shard",
        "readers": {},
        "goals": [],
    }
    for threads in options.threads:
        each = rates(bench, threads, options)
        for name, values in each.items():
            found["readers"][f"{name}, {threads}"] = {
                "reader": name,
                "threads": threads,
                "gb_s": statistics.median(values),
                "of_memmap": ratio(each, name, "memmap"),
            }
        for (name, other, at), least in GOALS.items():
            if at == threads:
                goal = {"reader": name, "peer": other, "threads": at, "least": least}
                found["goals"].append({**goal, "ratio": ratio(each, name, other)})
    found["dequantisation_gb_s"] = dequantisation(bench, options)
    return found


def print_table(found: dict[str, Any]) -> None:
    print_conditions(found["conditions"])
    print(f"{'store:':11}{found['store']}\n")
    print(f"{'reader':24}{'threads':>8}{'GB/s':>8}{'/ memmap':>10}")
    for row in found["readers"].values():
        print(f"{row['reader']:24}{row['threads']:8}{row['gb_s']:8.2f}{row['of_memmap']:10.2f}")
    print(f"\ndequantisation in numpy, apart: {found['dequantisation_gb_s']:.2f} GB/s of stored bytes")
    for goal in found["goals"]:
        verdict = "met" if goal["ratio"] >= goal["least"] else "MISSED"
        print(
            f"{goal['reader']} / {goal['peer']}, {goal['threads']} threads: {goal['ratio']:.2f}, "
            f"goal {goal['least']}: {verdict}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--path", type=Path, help="a finished store to read; default: one is made")
    parser.add_argument("--size-gb", type=float, default=1.0, help="of the store that is made")
    parser.add_argument("--folder", type=Path, help="where it is made, and removed again")
    parser.add_argument("--batch", type=int, default=16, help="rows read at once")
    parser.add_argument("--batches", type=int, default=16, help="in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    options = parser.parse_args()
    with store_to_read(options) as path:
        found = measure(path, options)
    if options.json:
        print(json.dumps(found))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
