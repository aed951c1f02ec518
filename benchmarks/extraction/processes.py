r"""Two processes that fill one store, beside one process: images a second, one core each.

Each process is bound to a core of its own and starts once: its backbone is loaded and warm before the clock
runs. One and two take turns, each with a new store; the clock runs until the last process is done, commit
included. The median of the pairs' ratios is printed. It means something on a machine at rest with at least
two cores only: `load` and the processor time a row show whether it was.

    python -m benchmarks.extraction.processes [--model swinv2-t] [--size 512] [--rows 64] [--pairs 3] \
        [--folder .] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.extraction.pipeline import write_photographs
from benchmarks.machine import conditions, print_conditions, processor_seconds
from extract.backbones.loading import backbone_card, load_backbone
from extract.datasets import open_dataset, view_recipe
from extract.extractor.run import extract
from extract.extractor.shared_shards import Part
from extract.planning.plan import build_plan
from stores.writing.writer import StoreWriter

GOAL = 1.8
"""Least speed of two processes, of that of one."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a process did of a store."""

    began: float
    ended: float
    """Both on the clock that all processes share."""
    processor_s: float
    rows: int
    is_complete: bool


def work(data: str, model: str, size: int, core: int, orders: Connection) -> None:
    """A process: answers every (folder of stores, part or None) with a `Done`, None with its end."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    logging.getLogger("extract").setLevel(logging.ERROR)  # drawn weights are meant here
    dataset, card = open_dataset("ade20k", data, "training"), backbone_card(model)
    backbone = load_backbone(card, "random:0", precision="fp32")
    plan = build_plan(
        dataset,
        view_recipe("ade20k", "ade20k", crop_size=size),
        card,
        weights_sha256=backbone.weights_sha256,
        precision="fp32",
        batch_rows=4,
    )
    with tempfile.TemporaryDirectory() as folder:  # warms up, and starts the decoder
        writer = StoreWriter.open_or_create(Path(folder), plan, needed_bytes=0)
        extract(dataset, plan, backbone, writer, workers=1, most=1)
    orders.send("ready")
    while (order := orders.recv()) is not None:
        root, part = order
        began, used = time.monotonic(), processor_seconds()
        writer = StoreWriter.open_or_create(Path(root), plan, needed_bytes=0)
        summary = extract(dataset, plan, backbone, writer, part=part and Part(*part), workers=1)
        orders.send(
            Done(
                began,
                time.monotonic(),
                processor_seconds() - used,
                summary.rows_written,
                summary.manifest_digest is not None,
            )
        )


def run_together(workers: Sequence[Connection], folder: Path) -> list[Done]:
    """One new store, filled by these processes."""
    os.sync()
    with tempfile.TemporaryDirectory(dir=folder, prefix="benchmark-processes-") as root:
        for number, orders in enumerate(workers):
            orders.send((root, None if len(workers) == 1 else (number, len(workers))))
        return [orders.recv() for orders in workers]


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    data = str(write_photographs(folder, options.rows))
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0))[:2]
    pipes = [context.Pipe() for _ in cores]
    processes = [
        context.Process(target=work, args=(data, options.model, options.size, core, theirs), daemon=False)
        for core, (_, theirs) in zip(cores, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()  # so that an end without an answer is seen
    workers = [ours for ours, _ in pipes]
    try:
        for orders in workers:
            orders.recv()
        pairs = [
            (run_together(workers[:1], folder), run_together(workers, folder)) for _ in range(options.pairs)
        ]
        for orders in workers:
            orders.send(None)
    finally:
        for orders in workers:
            orders.close()
        for process in processes:
            process.join()
    for done in (each for pair in pairs for each in pair):
        assert sum(each.rows for each in done) == options.rows and any(each.is_complete for each in done)
    found: dict[str, Any] = {
        name: {
            "images_per_s": statistics.median(options.rows / _seconds(pair[index]) for pair in pairs),
            "processor_ms_a_row": statistics.median(
                1e3 * sum(done.processor_s for done in pair[index]) / options.rows for pair in pairs
            ),
        }
        for index, name in enumerate(("one", "two"))
    }
    return {**found, "ratio": statistics.median(_seconds(one) / _seconds(two) for one, two in pairs)}


def _seconds(done: Sequence[Done]) -> float:
    return max(each.ended for each in done) - min(each.began for each in done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="swinv2-t")
    parser.add_argument("--size", type=int, default=512, help="side of a view in pixels")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="disk to write to")
    parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two processes need two cores; this one may use one only")
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-processes-") as folder:
        found = {"conditions": conditions(options.folder), **measure(options, Path(folder))}
    if options.json:
        print(json.dumps(found))
        return
    print_conditions(found["conditions"])
    print(f"\n{'':16}{'images/s':>10}{'processor ms a row':>20}")
    for name, figures in (("one process", found["one"]), ("two processes", found["two"])):
        print(f"{name:16}{figures['images_per_s']:10.2f}{figures['processor_ms_a_row']:20.1f}")
    verdict = "met" if found["ratio"] >= GOAL else "MISSED"
    print(f"two are {found['ratio']:.2f} times as fast as one, goal at least {GOAL}: {verdict}")


if __name__ == "__main__":
    main()
