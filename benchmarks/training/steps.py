"""What the benchmarks of training share: a store with labels, and a step of a head."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.stores.swinv2_b_store import PYRAMID
from heads import build_head
from pipelines.config import OptimizerConfig
from pipelines.feed.joined_stores import JoinedStores, Rows
from pipelines.feed.store_feed import Batch, StoreFeed
from pipelines.tasks import task_of
from pipelines.training.optimisation.optimizer import build_optimizer
from stores.format.plan import Bin, DenseTarget, StorePlan, feature_row_bytes, shard_rows_for
from stores.format.row_table import RowTable
from stores.writing.writer import StoreWriter

CLASSES = 150
CPU = torch.device("cpu")


def write_labelled_store(root: Path, rows: int, side_px: int, target: str = "labels") -> Path:
    """Random int8 pyramids of SwinV2-B with random label maps, in regions of 32 px."""
    hw = np.full((rows, 2), side_px, np.int32)
    row_bytes = feature_row_bytes(PYRAMID, "int8", side_px, side_px)
    shard_rows = shard_rows_for(max(row_bytes.values()), rows)
    plan = StorePlan(
        name="random-training-swinv2-b-int8",
        identity={
            "dataset": {"name": "random", "task": "segmentation", "num_classes": CLASSES},
            "rows": rows,
        },
        pyramid=PYRAMID,
        codec="int8",
        codec_settings={},
        bins=(Bin(height_px=side_px, width_px=side_px, rows=rows, shard_rows=shard_rows),),
        targets=(DenseTarget(target, "uint8", ("y", "x")),),
        view_params=(),
        rows=RowTable(
            keys=tuple(f"{row:08}" for row in range(rows)),
            view=np.zeros(rows, np.int32),
            params=np.zeros((rows, 0)),
            bin=np.zeros(rows, np.int32),
            padded_hw=hw,
            valid_hw=hw,
            original_hw=hw,
        ),
    )
    generator, writer = np.random.default_rng(0), StoreWriter.open_or_create(root, plan)
    for shard in writer.pending():
        shard_writer = writer.open_shard(shard)
        for row in shard_writer.rows:
            features = {}
            for level in PYRAMID:
                cells = level.cells(side_px)
                q = generator.integers(-127, 128, (cells, cells, level.channels), dtype=np.int8)
                features[level.name] = {"q": q, "scale": np.full(level.channels, 0.01, np.float32)}
            regions = generator.integers(0, CLASSES, (side_px // 32, side_px // 32), dtype=np.uint8)
            labels = {target: np.kron(regions, np.ones((32, 32), np.uint8))}
            shard_writer.put(row, features, labels, source_sha256=bytes(32))
        shard_writer.commit({}, {})
    writer.finish()
    return writer.path


def random_batches(rows: int, batch: int) -> Iterator[Rows]:
    """Batches of different random rows without end."""
    generator = np.random.default_rng(0)
    while True:
        yield generator.choice(rows, batch, replace=False).astype(np.int64)


def feed_of(
    stores: JoinedStores, batch: int, count: int | None = None, device: torch.device = CPU
) -> StoreFeed:
    """A feed of `count` batches of random rows, all levels; None for no end."""
    return StoreFeed(
        stores,
        islice(random_batches(len(stores), batch), count),
        batch_size=batch,
        levels=PYRAMID.names,
        task=task_of("segmentation"),
        device=device,
    )


def step_of(name: str, device: torch.device = CPU) -> Callable[[Batch], None]:
    """Forward, losses, backward and AdamW of a head with its paper's settings, as a run does them."""
    head = build_head(name, "segmentation", PYRAMID, CLASSES, seed=0).to(device).train()
    optimizer = build_optimizer(head, OptimizerConfig())

    def step(batch: Batch) -> None:
        generator = torch.Generator(device).manual_seed(0)
        terms = head.losses(batch.features, batch.targets, batch.valid_hw, generator)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
