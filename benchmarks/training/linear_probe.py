"""Images a second of a linear probe's training: pooled rows in memory, and read row by row, in one run.

    python -m benchmarks.training.linear_probe [--store features/... | --rows 200000] [--batch-size 16384]

Without a store one is made, of random vectors of SwinV2-B's width with 1,000 classes, in a temporary folder.
Prints a table in Markdown: rows a second, MB/s, and processor seconds for a million rows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import conditions, print_conditions
from benchmarks.stores.one_bin import rows_of_one_bin
from heads import build_head
from pipelines.feed.joined_stores import JoinedStores
from pipelines.feed.resident_rows import ResidentFeed, ResidentRows
from pipelines.feed.row_order import EndlessRows
from pipelines.feed.store_feed import Batch, StoreFeed
from pipelines.tasks import task_of
from stores.format.features import NEW_OPTIONAL, NEW_REQUIRED, WIDE_SHARDS
from stores.format.plan import MAX_WIDE_SHARD_ROWS, Bin, DenseTarget, StorePlan, shard_rows_for
from stores.pyramid import ONE_CELL_PX, Level, PyramidSpec
from stores.writing.writer import StoreWriter

CHANNELS, CLASSES, SIDE_PX = 1024, 1000, 224
ROW_BYTES = 2 * CHANNELS


def write_pooled_store(root: Path, rows: int) -> Path:
    """Random float16 vectors with random labels, in shards as extractions cut them."""
    shard_rows = shard_rows_for(ROW_BYTES, rows, MAX_WIDE_SHARD_ROWS)
    plan = StorePlan(
        name="random-train-swinv2-b-float16",
        identity={
            "dataset": {"name": "random", "task": "classification", "num_classes": CLASSES},
            "rows": rows,
        },
        pyramid=PyramidSpec((Level(name="avg", stride_px=ONE_CELL_PX, channels=CHANNELS, stage=4),)),
        codec="float16",
        codec_settings={},
        bins=(Bin(height_px=SIDE_PX, width_px=SIDE_PX, rows=rows, shard_rows=shard_rows),),
        targets=(DenseTarget("label", "int64", ()),),
        view_params=(),
        rows=rows_of_one_bin(rows, SIDE_PX),
        required_features=(*NEW_REQUIRED, WIDE_SHARDS),
        optional_features=NEW_OPTIONAL,
    )
    generator, writer = np.random.default_rng(0), StoreWriter.open_or_create(root, plan)
    for shard in writer.pending():
        shard_writer = writer.open_shard(shard)
        x_NC = generator.standard_normal((len(shard_writer.rows), CHANNELS), np.float32).astype(np.float16)
        labels_N = generator.integers(0, CLASSES, len(x_NC))
        for row, x_C, label in zip(shard_writer.rows, x_NC, labels_N, strict=True):
            shard_writer.put(row, {"avg": {"q": x_C[None, None]}}, {"label": label}, source_sha256=bytes(32))
        shard_writer.commit({}, {})
    writer.finish()
    return writer.path


def train(batches: Iterator[Batch], head: torch.nn.Module) -> int:
    """Forward, backward and update of every batch; returns the rows."""
    optimizer, count = torch.optim.SGD(head.parameters(), lr=1e-3), 0
    for batch in batches:
        loss = sum(head.losses(batch.features, batch.targets, batch.valid_hw).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        count += len(batch.keys)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return count


def line(name: str, work: Callable[[], int], row_bytes: int) -> str:
    """A row of the table, of work that returns how many rows it took."""
    began, processor = time.perf_counter(), time.process_time()
    rows = work()
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    speed = rows / seconds
    return f"| {name} | {speed:,.0f} | {speed * row_bytes / 1e6:,.0f} | {processor / rows * 1e6:.1f} |"


def measure(path: Path, batch_size: int, epochs: int) -> None:
    """Prints the table of one store."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stores = JoinedStores.open([path], verify="always", threads=2)
    dataset = next(iter(stores)).identity["dataset"]
    task, levels = task_of(dataset["task"]), stores.pyramid.names
    row_bytes = 2 * sum(level.channels for level in stores.pyramid)
    files = [file for file in path.rglob("*") if file.is_file()]
    held: list[ResidentRows] = []

    def read_files() -> int:
        return len(stores) if sum(len(file.read_bytes()) for file in files) else 0

    def read_rows() -> int:
        held.append(ResidentRows(stores, levels, task))
        return len(stores)

    def training(resident: ResidentRows | None, steps: int) -> Callable[[], int]:
        rows = EndlessRows(stores.index, batch_size=batch_size, seed=0).batches(0, steps)
        head = build_head("linear", dataset["task"], stores.pyramid, dataset["num_classes"], seed=0)
        head = head.to(device).train()
        if resident is not None:
            return lambda: train(ResidentFeed(resident, rows, device), head)
        feed = StoreFeed(stores, rows, batch_size=batch_size, levels=levels, task=task, device=device)
        return lambda: train(feed, head)

    print(f"{len(stores):,} rows in {len(files):,} files, {device}, batches of {batch_size:,}\n")
    print("| work | rows/s | MB/s | processor s a million rows |\n|---|---|---|---|")
    print(line("all files read once, as they are", read_files, row_bytes))
    print(line("rows read into memory, checked", read_rows, row_bytes))
    training(held[0], 1)()  # the first step of a process is slower
    steps = epochs * (len(stores) // batch_size)
    print(line("training from rows in memory", training(held[0], steps), row_bytes))
    print(line("training, every row read from its shard", training(None, steps), row_bytes))
    stores.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch-size", type=int, default=16384)
    parser.add_argument("--epochs", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.store or write_pooled_store(Path(folder), asked.rows)
        print_conditions(conditions(path))
        measure(path, min(asked.batch_size, asked.rows), asked.epochs)


if __name__ == "__main__":
    main()
