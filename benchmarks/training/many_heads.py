"""Several heads in one pass over a store, beside each head alone on one resident batch and one read.

Time: as `train-head --head a,b,...` does it, heads take turns in threads on one stream of batches. Memory:
the peak of a process that trains them so, beside what the bound allows: all weights, their optimisers'
moments, the largest single head's activations and two batches; each from a process of its own.

    python -m benchmarks.training.many_heads [--heads fpn,bifpn1,bifpn3,bifpn5] [--side-px 256] [--batch 2]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import conditions, print_conditions
from benchmarks.training.steps import CLASSES, CPU, PYRAMID, feed_of, seconds, step_of, write_random_store
from heads import build_head
from pipelines.feed.joined_stores import JoinedStores
from pipelines.feed.store_feed import Batch
from pipelines.machine.malloc_arenas import share_one_arena
from pipelines.training.several_runs.take_turns import SharedBatches
from stores.format.plan import feature_row_bytes

Step = Callable[[Batch], None]


def one_pass(
    stores: JoinedStores, steps: list[Step], count: int, batch: int, device: torch.device = CPU
) -> int:
    """`count` steps of every head on one stream; returns the bytes that were read for them."""
    feed = feed_of(stores, batch, count, device)
    shared = SharedBatches(feed, [0] * len(steps))

    def train(seat: int) -> None:
        shared.turns.wait(seat)
        try:
            batches = shared.batches(seat)
            for _ in range(count):
                steps[seat](next(batches))
        finally:
            shared.leave(seat)

    threads = [threading.Thread(target=train, args=(seat,)) for seat in range(len(steps))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    feed.close()
    return feed.reading.bytes


def read_alone(stores: JoinedStores, count: int, batch: int, device: torch.device = CPU) -> None:
    """One read: `count` batches as a step gets them."""
    feed = feed_of(stores, batch, count, device)
    for _ in feed:
        pass
    feed.close()


def times(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Medians over rounds, in each of which all take turns."""
    device = torch.device(options.device)
    stores = JoinedStores.open([path], verify="always", threads=2)
    steps = {name: step_of(name, device) for name in options.heads}
    resident = next(feed := feed_of(stores, options.batch, device=device))
    feed.close()
    for step in steps.values():
        step(resident)
    alone: dict[str, list[float]] = {name: [] for name in steps}
    together, reads, ratios, read_bytes = [], [], [], 0
    for _ in range(options.rounds):
        for name, step in steps.items():
            work = lambda: [step(resident) for _ in range(options.steps)] and None  # noqa: B023, E731
            alone[name].append(seconds(work, device))
        reads.append(seconds(lambda: read_alone(stores, options.steps, options.batch, device), device))

        def run() -> None:
            nonlocal read_bytes
            read_bytes = one_pass(stores, list(steps.values()), options.steps, options.batch, device)

        together.append(seconds(run, device))
        ratios.append(together[-1] / (sum(each[-1] for each in alone.values()) + reads[-1]))
    stores.close()
    return {
        "alone_s": {name: statistics.median(each) / options.steps for name, each in alone.items()},
        "read_s": statistics.median(reads) / options.steps,
        "together_s": statistics.median(together) / options.steps,
        "ratio": statistics.median(ratios),
        "read_bytes": read_bytes,
        "one_run_bytes": options.steps * options.batch * sum(_row_bytes(options.side_px).values()),
    }


def _row_bytes(side_px: int) -> dict[str, int]:
    rows = feature_row_bytes(PYRAMID, "int8", side_px, side_px)
    return {level.name: rows[level.name] + 4 * level.channels for level in PYRAMID}


def peak_bytes(path: Path, heads: list[str], options: argparse.Namespace) -> int:
    """The most resident memory of a fresh process that trains `heads` for two steps; none: only reads."""
    words = [
        *("--folder", str(path)),
        *("--batch", str(options.batch)),
        "--peak-of",
        ",".join(heads) or "none",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training.many_heads", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


def print_peak(path: Path, heads: list[str], batch: int) -> None:
    stores = JoinedStores.open([path], verify="always", threads=2)
    if heads == ["none"]:
        read_alone(stores, 2, batch)
    else:
        one_pass(stores, [step_of(name) for name in heads], 2, batch)
    status = Path("/proc/self/status").read_text()  # getrusage would count what the parent held
    print(1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]))  # type: ignore[index]


def memory(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Peak of all heads together, and the bound put together from processes with one head each."""
    weights = {
        name: sum(p.nbytes for p in build_head(name, "segmentation", PYRAMID, CLASSES, seed=0).parameters())
        for name in options.heads
    }
    base = peak_bytes(path, [], options)
    state = {name: 3 * each for name, each in weights.items()}  # with both moments of AdamW
    activations = {name: peak_bytes(path, [name], options) - base - state[name] for name in options.heads}
    values = sum(level.cells(options.side_px) ** 2 * level.channels for level in PYRAMID)
    batches = 2 * options.batch * 4 * values
    return {
        "together": peak_bytes(path, options.heads, options),
        "bound": base + sum(state.values()) + max(activations.values()) + batches,
        "base": base,
        "weights_and_moments": sum(state.values()),
        "largest_activations": max(activations.values()),
        "two_batches": batches,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--heads", type=lambda t: t.split(","), default=["fpn", "bifpn1", "bifpn3", "bifpn5"])
    parser.add_argument("--side-px", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=2, help="in a round")
    parser.add_argument("--folder", type=Path, help="where the store is made, and removed again")
    parser.add_argument("--peak-of", type=lambda t: t.split(","), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    options = parser.parse_args()
    share_one_arena()  # as train-head does
    if options.peak_of:
        print_peak(options.folder, options.peak_of, options.batch)
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-heads-") as name:
        path = write_random_store(Path(name), 32, options.side_px)
        found = {
            "conditions": conditions(path),
            "times": times(path, options),
            **({} if options.device != "cpu" else {"memory": memory(path, options)}),
        }
        if options.device != "cpu":
            found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    if options.json:
        print(json.dumps(found))
        return
    print_conditions(found["conditions"])
    for head, each in found["times"].pop("alone_s").items():
        print(f"{head} alone: {each:.3f} s a step")
    for name, value in found["times"].items():
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    for name, value in found.get("memory", {}).items():
        print(f"{name}: {value / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
