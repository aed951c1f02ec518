"""Steps fed from a store beside steps on one batch that stays, of a head for each kind of target, in turns.

The store holds random int8 features of SwinV2-B: pyramids, or the last map of clips. Fed batches take the
whole way of a training: read and checked into a ring on the host, copied on a stream of its own, dequantised
on the device. Targets are made beforehand. "waits" is how often a fed step made the host wait for the GPU,
"waited" the share of its time in which no batch was there.

    python -m benchmarks.training.feed [--cases segmentation:linear,detection:fpn,video:global4] \
        [--batch 2] [--side-px 256] [--device cpu] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import conditions, print_conditions
from benchmarks.stores.swinv2_b_store import PYRAMID
from benchmarks.training.steps import CLASSES, count_waits, feed_of, seconds, step_of, write_random_store
from pipelines.feed.joined_stores import JoinedStores, Rows
from pipelines.tasks import task_of
from stores.pyramid import Level, PyramidSpec
from stores.reading.reader import open_store

CASES = (
    "segmentation:linear",
    "segmentation:bifpn5",
    "segmentation:m2f-pd6-td9",
    "detection:fpn",
    "video:global4",
)
GOAL = 1.03
"""Most times as long as a step on a batch that stays."""
CLIPS = PyramidSpec((Level(name="p5n", stride_px=32, channels=1024, stage=4),))
_MADE_ROWS = 32
"""Distinct targets, which are shown again and again."""


class MadeTargets(JoinedStores):
    """A store of features alone, with targets like a data set's."""

    def __init__(self, path: Path, task: str, side_px: int) -> None:
        super().__init__([open_store(path, threads=4)])
        made = task_of(task).made_targets(
            _MADE_ROWS, (side_px, side_px), CLASSES, torch.Generator().manual_seed(0)
        )
        self._made = [{name: value.numpy() for name, value in row.items()} for row in made]

    @property
    def targets(self) -> frozenset[str]:
        return frozenset(self._made[0])

    def read_targets(self, rows: Rows, names: Sequence[str]) -> list[dict[str, Any]]:
        return [{name: self._made[int(row) % _MADE_ROWS][name] for name in names} for row in rows]


def measure(case: str, paths: dict[str, Path], options: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds."""
    task, _, head = case.partition(":")
    device, is_video = torch.device(options.device), task == "video"
    stores = MadeTargets(paths["video" if is_video else "images"], task, options.side_px)
    step = step_of(head, device, task, CLIPS if is_video else PYRAMID)
    batch = min(options.batch, len(stores))
    resident = next(feed := feed_of(stores, batch, device=device, task=task))
    feed.close()
    seconds(lambda: [step(resident) for _ in range(2)] and None, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    alone, fed, ratios, waited = [], [], [], []
    for _ in range(options.rounds):
        alone.append(seconds(lambda: [step(resident) for _ in range(options.steps)] and None, device))
        feed = feed_of(stores, batch, device=device, task=task)
        step(next(feed))
        before = feed.reading.waited_s
        fed.append(seconds(lambda: [step(next(feed)) for _ in range(options.steps)] and None, device))  # noqa: B023
        waited.append((feed.reading.waited_s - before) / fed[-1])
        ratios.append(fed[-1] / alone[-1])
        feed.close()
    feed = feed_of(stores, batch, device=device, task=task)
    step(next(feed))
    waits = count_waits(lambda: step(next(feed)), device)
    feed.close()
    stores.close()
    return {
        "resident_ms": 1e3 * statistics.median(alone) / options.steps,
        "fed_ms": 1e3 * statistics.median(fed) / options.steps,
        "fed / resident": statistics.median(ratios),
        "waited": statistics.median(waited),
        "waits": waits,
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--cases", type=lambda t: t.split(","), default=list(CASES), help="task:head")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--batch", type=int, default=16 if gpu else 2)
    parser.add_argument("--side-px", type=int, default=512 if gpu else 256)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rows", type=int, default=64 if gpu else 16, help="of the stores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="in a round")
    parser.add_argument("--folder", type=Path, help="where the stores are made, and removed again")
    parser.add_argument("--json", action="store_true", help="a line a case, as soon as it is measured")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-feed-") as name:
        folder, paths = Path(name), {}
        if any(not case.startswith("video") for case in options.cases):
            paths["images"] = write_random_store(
                folder / "images", options.rows, options.side_px, target=None
            )
        if any(case.startswith("video") for case in options.cases):
            paths["video"] = write_random_store(
                folder / "video",
                options.rows,
                min(256, options.side_px),
                pyramid=CLIPS,
                frames=options.frames,
                target=None,
            )
        if not options.json:
            print_conditions(conditions(folder))
            print(f"\n| head | resident, ms | fed, ms | fed / resident (goal {GOAL}) | waited | waits |")
            print("|---|---|---|---|---|---|")
        for case in options.cases:
            try:
                found = measure(case, paths, options)
            except Exception as error:  # another case may run: one lacks a package, one the memory
                found, failed = {"problem": f"{type(error).__name__}: {error}"}, True
            if options.json:
                print(json.dumps({case: found}), flush=True)
            elif "problem" in found:
                print(f"| {case} | {found['problem']} | | | | |", flush=True)
            else:
                waits = "-" if found["waits"] is None else found["waits"]
                print(
                    f"| {case} | {found['resident_ms']:.1f} | {found['fed_ms']:.1f} | "
                    f"{found['fed / resident']:.3f} | {100 * found['waited']:.1f} % | {waits} |",
                    flush=True,
                )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
