"""Measuring a segmentation head on a test store: `evaluate`'s loop beside a plain one, in turns, in one run.

The plain loop is what people write: each row read, decoded, predicted and counted by itself, with the whole
map of class scores. Both count the same pixels, which is checked. Medians of the processor time on a CPU, of
the clock on a GPU. Without --store it measures a made store of random features.

    python -m benchmarks.training.evaluate [--store features/...] [--heads linear,bifpn1] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import conditions, print_conditions
from benchmarks.training.steps import write_random_store
from heads import build_head
from heads.contract import Head
from pipelines.evaluation.store_views import store_views
from pipelines.metrics.pixel_scores import intersections, unions
from pipelines.tasks import task_of
from stores.reading.reader import Store, open_store

Counted = tuple[list[int], list[int]]
"""Intersections and unions of all classes."""


def plain_loop(store: Store, head: Head, device: torch.device) -> Counted:
    """Row by row; waits for the device in each."""
    classes = head.num_classes
    counts_KK = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    for row in range(len(store)):
        decoded = store.read_features([row], head.levels)
        features = {
            name: torch.from_numpy(x).to(device).contiguous(memory_format=torch.channels_last)
            for name, x in decoded.items()
        }
        (truth,) = store.read_targets([row], ("original_labels",))
        labels_HW = torch.from_numpy(truth["original_labels"]).to(device)
        valid, original = store.valid_hw[row].tolist(), store.original_hw[row].tolist()
        with torch.no_grad():
            (scores_KHW,) = head.predict(features, [tuple(valid)], [tuple(original)])
        predicted_HW, counted_HW = scores_KHW.argmax(0), labels_HW != 255
        truth_P = labels_HW[counted_HW].long()
        assert int(truth_P.max()) < classes
        cells_P = truth_P * classes + predicted_HW[counted_HW]
        counts_KK += torch.bincount(cells_P, minlength=classes**2).view(classes, classes)
    on_host = counts_KK.cpu().numpy()
    return intersections(on_host), unions(on_host)


def batched(store: Store, head: Head, device: torch.device) -> Counted:
    """As `evaluate` does it, in float32."""
    with closing(store_views(store, head.levels, ("original_labels",), device)) as views:
        found = task_of("segmentation").measure(head, views, views_name="", device=device, bf16=False)
    return found.intersections, found.unions  # type: ignore[attr-defined]


def seconds(run: Callable[[], Counted], device: torch.device) -> tuple[float, Counted]:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    began = clock()
    found = run()
    return clock() - began, found


def compare(store: Store, name: str, rounds: int, device: torch.device) -> dict[str, float]:
    """Medians in seconds of both ways, and their ratio round by round. Raises RuntimeError where counts
    differ by more than a pixel in a million."""
    classes = int(store.identity["dataset"]["num_classes"])
    head = build_head(name, "segmentation", store.pyramid, classes, seed=0).to(device).eval()
    times: dict[str, list[float]] = {"plain": [], "evaluate": []}
    for number in range(rounds + 1):
        plain, expected = seconds(lambda: plain_loop(store, head, device), device)
        ours, found = seconds(lambda: batched(store, head, device), device)
        difference = np.abs(np.subtract(found, expected)).max()
        if difference > 1e-6 * sum(expected[1]):
            raise RuntimeError(
                f"{name}: counts of a class differ by {difference} pixels of {sum(expected[1])}"
            )
        if number:  # the first round warms up
            times["plain"].append(plain)
            times["evaluate"].append(ours)
    return {
        "plain_s": statistics.median(times["plain"]),
        "evaluate_s": statistics.median(times["evaluate"]),
        "faster": statistics.median(a / b for a, b in zip(*times.values(), strict=True)),
        "differing_pixels": float(difference),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", type=Path, help="a test store of segmentation with single views")
    parser.add_argument("--heads", type=lambda text: text.split(","), default=["linear", "bifpn1"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with ExitStack() as opened:
        if options.store is None:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-evaluate-"))
            options.store = write_random_store(Path(folder), 16, 256, target="original_labels")
        store = opened.enter_context(open_store(options.store))
        print_conditions(conditions(options.store))
        kind = "seconds by the clock" if device.type == "cuda" else "processor seconds"
        print(f"{len(store)} rows, {kind}\n\n| head | plain loop | evaluate | ratio | pixels that differ |")
        print("|---|---|---|---|---|")
        for name in options.heads:
            found = compare(store, name, options.rounds, device)
            print(
                f"| {name} | {found['plain_s']:.2f} | {found['evaluate_s']:.2f} | {found['faster']:.2f} | "
                f"{found['differing_pixels']:.0f} |"
            )


if __name__ == "__main__":
    main()
