"""Images a second of a linear probe's training: pooled rows in memory, and read row by row, in one run.

python -m benchmarks.training.linear_probe --store features/... [--batch-size 16384] [--steps 50]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.machine import conditions, print_conditions
from heads import build_head
from pipelines.feed.joined_stores import JoinedStores
from pipelines.feed.resident_rows import ResidentFeed, ResidentRows
from pipelines.feed.row_order import EndlessRows
from pipelines.feed.store_feed import Batch, StoreFeed
from pipelines.tasks import task_for


def images_a_second(batches: Iterator[Batch], head: torch.nn.Module, device: torch.device) -> float:
    """Of forward, backward and reading; the first batch is not counted."""
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-3)
    count, began = 0, 0.0
    for number, batch in enumerate(batches):
        if number == 1:
            began = time.perf_counter()
        loss = sum(head.losses(batch.features, batch.targets, batch.valid_hw).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        count += len(batch.keys) if number else 0
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=16384)
    parser.add_argument("--steps", type=int, default=50)
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print_conditions(conditions(asked.store))
    stores = JoinedStores.open([asked.store], verify="always", threads=2)
    dataset = next(iter(stores)).identity["dataset"]
    task, levels = task_for(dataset), stores.pyramid.names
    began = time.perf_counter()
    resident = ResidentRows(stores, levels, task)
    print(f"read into memory: {len(stores) / (time.perf_counter() - began):.0f} rows/s, checked")
    for name in ("memory", "disk"):
        rows = EndlessRows(stores.index, batch_size=asked.batch_size, seed=0).batches(0, asked.steps)
        head = build_head("linear", "classification", stores.pyramid, dataset["num_classes"], seed=0).to(
            device
        )
        if name == "memory":
            feed: Iterator[Batch] = ResidentFeed(resident, rows, device)
        else:
            feed = StoreFeed(
                stores, rows, batch_size=asked.batch_size, levels=levels, task=task, device=device
            )
        print(f"{name}: {images_a_second(feed, head, device):.0f} images/s")
    stores.close()


if __name__ == "__main__":
    main()
