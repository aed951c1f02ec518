r"""The writer of an extraction with an instant backbone, beside a plain sequential writer of the same bytes.

Made int8 pyramids of SwinV2-B at 512 px are handed to the threads of an extraction as fast as they take them:
values checked, rows digested, receipts, codec error, fsync, commit. The whole extraction adds the batches of
loaded rows, claims and the commit of the store. The plain writer writes the same arrays into one file and
syncs it. All take turns, and so does the measurement from which `plan` forecasts such an extraction; medians
over the rounds are printed, with SHA-256 alone as a ruler for other machines, and a line for a table.

    taskset -c 0,1 python -m benchmarks.extraction.writer [--size-gb 4] [--folder /dev/shm] [--batch 16] \
        [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.extraction.instant import extract_instantly
from benchmarks.machine import conditions, print_conditions
from benchmarks.stores.swinv2_b_store import DISTINCT_ROWS, plan_of, random_rows
from pipelines.forecast.disk_probe import Written, measure_disk, write_shards
from stores.format.plan import StorePlan

MOST_PROCESSOR_S_PER_GB = 0.7
LEAST_GB_S = 2.2
"""To memory, with two cores."""
LEAST_SHARE = 0.9
"""Of a plain sequential writer's speed, on a disk."""
MOST_FORECAST_ERROR = 0.2
"""Of the seconds that `plan` forecasts of an extraction that its writer limits."""
IN_MEMORY = ("tmpfs", "ramfs")


def write_plainly(path: Path, arrays: list[memoryview], rows: int) -> Written:
    """One file, array by array, fsync at the end: the fastest that says when its bytes are on the disk."""
    began, used, size = time.perf_counter(), time.process_time(), 0
    with path.open("wb", buffering=0) as file:
        for row in range(rows):
            for array in arrays[row % DISTINCT_ROWS :: DISTINCT_ROWS]:
                size += file.write(array)
        os.fsync(file.fileno())
    return Written(size, time.perf_counter() - began, time.process_time() - used)


def hash_plainly(arrays: list[memoryview]) -> Written:
    """SHA-256 of the distinct rows: how fast this machine's cores are, beside those that the goals are of."""
    began, used = time.perf_counter(), time.process_time()
    for array in arrays:
        hashlib.sha256(array)
    size = sum(map(len, arrays))
    return Written(size, time.perf_counter() - began, time.process_time() - used)


def measure(folder: Path, plan: StorePlan, rounds: int) -> dict[str, Any]:
    rows = random_rows()
    arrays = [
        row[level][kind].reshape(-1).view("u1").data
        for level in rows[0]
        for kind in rows[0][level]
        for row in rows
    ]
    found: dict[str, list[Written]] = {"store": [], "extraction": [], "plain": [], "sha256": []}
    ways: dict[str, Callable[[Path], Written]] = {
        "store": lambda root: write_shards(plan, root, plan.bins[0].shards, 1 << 62),
        "extraction": lambda root: extract_instantly(plan, root),
        "plain": lambda root: write_plainly(root / "plain", arrays, plan.bins[0].rows),
        "sha256": lambda _: hash_plainly(arrays),
    }
    forecast: list[float] = []
    for _ in range(rounds):
        forecast.append(measure_disk(plan, folder)["write_bytes_per_s"])
        for name, write in ways.items():
            os.sync()  # what earlier rounds left is not part of this one
            with tempfile.TemporaryDirectory(dir=folder, prefix="benchmark-writer-") as root:
                found[name].append(write(Path(root)))
    rates = {
        name: {
            "gb_s": statistics.median(each.bytes / each.seconds / 1e9 for each in times),
            "processor_s_per_gb": statistics.median(each.processor_s / each.bytes * 1e9 for each in times),
        }
        for name, times in found.items()
    }
    pairs = zip(found["store"], found["plain"], strict=True)
    share = statistics.median(
        store.bytes / store.seconds * plain.seconds / plain.bytes for store, plain in pairs
    )
    took = zip(forecast, found["extraction"], strict=True)
    error = statistics.median(real.bytes / rate / real.seconds - 1 for rate, real in took)
    return {**rates, "share": share, "forecast_error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size-gb", type=float, default=4.0)
    parser.add_argument(
        "--folder", type=Path, default=Path("/dev/shm"), help="memory or the disk to write to"
    )
    parser.add_argument("--batch", type=int, default=16, help="rows of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    options = parser.parse_args()
    plan = plan_of(options.size_gb)
    plan = replace(plan, bins=(replace(plan.bins[0], batch_rows=options.batch),))
    measure(options.folder, plan, 1)  # warms up: memory is touched for the first time
    found = {"conditions": conditions(options.folder), **measure(options.folder, plan, options.rounds)}
    print(json.dumps(found)) if options.json else print_table(found, options.folder, options.size_gb)


def print_table(found: dict[str, Any], folder: Path, size_gb: float) -> None:
    print_conditions(found["conditions"])
    print(f"\n{'':24}{'GB/s':>8}{'processor s a GB':>18}")
    texts = {
        "store": "extraction's writer",
        "extraction": "whole extraction",
        "plain": "plain file, fsync",
        "sha256": "SHA-256 alone, one core",
    }
    for name, text in texts.items():
        print(f"{text:24}{found[name]['gb_s']:8.2f}{found[name]['processor_s_per_gb']:18.2f}")
    if found["conditions"]["disk"].split()[-1] in IN_MEMORY:
        print(
            _verdict(
                "processor s a GB", found["store"]["processor_s_per_gb"], MOST_PROCESSOR_S_PER_GB, most=True
            )
        )
        print(_verdict("GB/s with two cores", found["store"]["gb_s"], LEAST_GB_S))
    else:
        print(_verdict("share of the plain writer", found["share"], LEAST_SHARE))
    error = found["forecast_error"]
    met = "met" if abs(error) <= MOST_FORECAST_ERROR else "MISSED"
    print(f"plan's forecast of the extraction: {error:+.0%}, goal within {MOST_FORECAST_ERROR:.0%}: {met}")
    cores = len(os.sched_getaffinity(0))
    print(
        f"\n| {folder}, {size_gb:g} GB, {cores} cores | {found['store']['gb_s']:.2f} | "
        f"{found['store']['processor_s_per_gb']:.2f} | {found['share']:.2f} |"
    )


def _verdict(what: str, value: float, goal: float, *, most: bool = False) -> str:
    met = value <= goal if most else value >= goal
    return (
        f"{what}: {value:.2f}, goal {'at most' if most else 'at least'} {goal}: {'met' if met else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
