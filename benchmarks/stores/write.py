"""How fast a store is written, beside zarr-python writing the same arrays with the same codecs and shards.

Ours takes row by row, checks the values, and leaves receipts, digests and a manifest; zarr-python is given
whole shards, which is its fastest way, and leaves arrays. Each thread has a shard of its own, as in an
extraction. Both with and without waiting for the disk (for zarr-python: fsync of every file, eight at
a time). Writers take turns, and medians over the rounds are printed.

    python -m benchmarks.stores.write [--size-gb 1] [--folder DISK] [--threads 1,2] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from benchmarks.machine import conditions, print_conditions
from benchmarks.stores.swinv2_b_store import DISTINCT_ROWS, ROW_BYTES, Row, plan_of, random_rows, write_store
from stores.format.array_spec import ArraySpec
from stores.format.arrays import sharded_arrays
from stores.format.plan import StorePlan
from stores.shards.disk import Files

GOAL = 2.0
"""Least ratio of ours to zarr-python's, with and without waiting for the disk."""

Write = Callable[[Path, StorePlan, list[Row], int], object]


class NotWaiting(Files):
    """Leaves it to the system when bytes go to the disk."""

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        return

    def sync(self, fd: int) -> None:
        return

    def sync_folder(self, path: Path) -> None:
        return


def permafrost(root: Path, plan: StorePlan, rows: list[Row], threads: int) -> None:
    write_store(root, plan, rows, files=NotWaiting(), threads=threads)


def permafrost_synced(root: Path, plan: StorePlan, rows: list[Row], threads: int) -> None:
    write_store(root, plan, rows, threads=threads)


def _zarr_array(root: Path, spec: ArraySpec) -> Any:
    return zarr.create_array(
        root / spec.path,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=(1, *spec.row_shape),
        shards=(spec.shard_rows, *spec.row_shape),
        compressors=[Crc32cCodec()],
        fill_value=spec.fill,
    )


def zarr_python(root: Path, plan: StorePlan, rows: list[Row], threads: int) -> None:
    """Each shard in one assignment, of an array that was put together before the clock runs."""

    def assign(array: Any, whole: np.ndarray[Any, Any], start: int) -> None:
        some = whole[: array.shape[0] - start]
        array[start : start + len(some)] = some

    with ThreadPoolExecutor(threads) as pool:
        running = [
            pool.submit(assign, array, WHOLE_SHARDS[name], start)
            for name, spec in sharded_arrays(plan, 0).items()
            for array in [_zarr_array(root, spec)]
            for start in range(0, spec.shape[0], spec.shard_rows or 1)
        ]
        for future in running:
            future.result()


def zarr_python_synced(root: Path, plan: StorePlan, rows: list[Row], threads: int) -> None:
    zarr_python(root, plan, rows, threads)

    def sync(path: Path) -> None:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sync, [path for path in root.rglob("*") if path.is_file()]))


WHOLE_SHARDS: dict[str, np.ndarray[Any, Any]] = {}
"""A shard of each array, for zarr-python."""
WRITERS: dict[str, tuple[Write, Write]] = {
    "without fsync": (permafrost, zarr_python),
    "with fsync": (permafrost_synced, zarr_python_synced),
}


def put_shards_together(plan: StorePlan, rows: list[Row]) -> None:
    unit = plan.bins[0].shard_rows
    for name, spec in sharded_arrays(plan, 0).items():
        _, level, kind = name.split("/")
        each = [rows[i % unit % DISTINCT_ROWS][level][kind] for i in range(spec.shard_rows or 1)]
        WHOLE_SHARDS[name] = np.stack(each)


def assert_equal(ours: Path, theirs: Path, plan: StorePlan) -> None:
    """The last row of every array is the same through zarr-python."""
    for spec in sharded_arrays(plan, 0).values():
        a, b = (zarr.open_array(root / spec.path, mode="r") for root in (ours, theirs))
        if a.shape != b.shape or not np.array_equal(a[spec.shape[0] - 1], b[spec.shape[0] - 1]):
            raise SystemExit(f"the two writers left different arrays at {spec.path}")


def rate(write: Write, root: Path, plan: StorePlan, rows: list[Row], threads: int) -> float:
    """GB/s of array bytes."""
    os.sync()  # what earlier rounds left is not part of this one
    started = time.perf_counter()
    write(root, plan, rows, threads)
    seconds = time.perf_counter() - started
    return sum(spec.total_bytes for spec in sharded_arrays(plan, 0).values()) / seconds / 1e9


def rounds_of(
    folder: Path, plan: StorePlan, pair: tuple[Write, Write], threads: int, rounds: int
) -> list[tuple[float, float]]:
    """The rates of both writers in each round."""
    rows, found = random_rows(), []
    ours, theirs = folder / "ours", folder / "zarr"
    for _ in range(rounds):
        found.append((rate(pair[0], ours, plan, rows, threads), rate(pair[1], theirs, plan, rows, threads)))
        assert_equal(ours / plan.folder_name, theirs, plan)
        shutil.rmtree(ours)
        shutil.rmtree(theirs)
    return found


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    plan = plan_of(options.size_gb)
    put_shards_together(plan, random_rows())
    found: dict[str, Any] = {
        "conditions": conditions(folder),
        "store": f"{plan.bins[0].rows} rows of {sum(ROW_BYTES.values()) / 1e6:.2f} MB, "
        f"{plan.bins[0].shard_rows} a shard",
        "writers": [],
    }
    for threads in options.threads:
        for name, pair in WRITERS.items():
            rounds = rounds_of(folder, plan, pair, threads, options.rounds)
            found["writers"].append(
                {
                    "threads": threads,
                    "disk": name,
                    "permafrost_gb_s": statistics.median(ours for ours, _ in rounds),
                    "zarr_gb_s": statistics.median(theirs for _, theirs in rounds),
                    "ratio": statistics.median(ours / theirs for ours, theirs in rounds),
                    "least": GOAL,
                }
            )
    return found


def print_table(found: dict[str, Any]) -> None:
    print_conditions(found["conditions"])
    print(f"{'store:':11}{found['store']}\n")
    print(f"{'GB/s':16}{'threads':>8}{'permafrost':>12}{'zarr':>8}{'ratio':>8}")
    for row in found["writers"]:
        verdict = "met" if row["ratio"] >= row["least"] else "MISSED"
        print(
            f"{row['disk']:16}{row['threads']:8}{row['permafrost_gb_s']:12.2f}{row['zarr_gb_s']:8.2f}"
            f"{row['ratio']:8.2f}   goal {row['least']}: {verdict}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size-gb", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, help="on the disk to write to; default: the temporary folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-write-") as folder:
        found = measure(Path(folder), options)
    if options.json:
        print(json.dumps(found))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
