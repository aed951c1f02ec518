"""What the benchmarks of training share: a store with labels, and a step of a head."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.stores.one_bin import rows_of_one_bin
from benchmarks.stores.swinv2_b_store import PYRAMID
from heads import build_head
from pipelines.config import OptimizerConfig
from pipelines.feed.joined_stores import JoinedStores, Rows
from pipelines.feed.store_feed import Batch, StoreFeed
from pipelines.machine.devices import autocast
from pipelines.machine.memory_format import channels_last
from pipelines.tasks import task_of
from pipelines.training.optimisation.optimizer import build_optimizer
from stores.format.plan import Bin, DenseTarget, StorePlan, feature_row_bytes, shard_rows_for
from stores.pyramid import PyramidSpec
from stores.writing.writer import StoreWriter

CLASSES = 150
CPU = torch.device("cpu")


def write_random_store(
    root: Path,
    rows: int,
    side_px: int,
    *,
    pyramid: PyramidSpec = PYRAMID,
    frames: int | None = None,
    target: str | None = "labels",
) -> Path:
    """Random int8 features, of SwinV2-B where no pyramid is given.

    Args:
        frames: of clips; None for images.
        target: name of random label maps, in regions of 32 px; None for none.
    """
    row_bytes = feature_row_bytes(pyramid, "int8", side_px, side_px, frames)
    shard_rows = shard_rows_for(max(row_bytes.values()), rows)
    plan = StorePlan(
        name="random-training-swinv2-b-int8",
        identity={
            "dataset": {"name": "random", "task": "segmentation", "num_classes": CLASSES},
            "rows": rows,
        },
        pyramid=pyramid,
        frames=frames,
        codec="int8",
        codec_settings={},
        bins=(Bin(height_px=side_px, width_px=side_px, rows=rows, shard_rows=shard_rows),),
        targets=() if target is None else (DenseTarget(target, "uint8", ("y", "x")),),
        view_params=(),
        rows=rows_of_one_bin(rows, side_px),
    )
    generator, writer = np.random.default_rng(0), StoreWriter.open_or_create(root, plan)
    for shard in writer.pending():
        shard_writer = writer.open_shard(shard)
        for row in shard_writer.rows:
            features = {}
            for level in pyramid:
                axes = () if frames is None else (frames,)
                shape = (*axes, level.cells(side_px), level.cells(side_px), level.channels)
                scale = np.full((*axes, level.channels), 0.01, np.float32)
                features[level.name] = {"q": generator.integers(-127, 128, shape, np.int8), "scale": scale}
            regions = generator.integers(0, CLASSES, (side_px // 32, side_px // 32), dtype=np.uint8)
            labels = {} if target is None else {target: np.kron(regions, np.ones((32, 32), np.uint8))}
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
    stores: JoinedStores,
    batch: int,
    count: int | None = None,
    device: torch.device = CPU,
    task: str = "segmentation",
) -> StoreFeed:
    """A feed of `count` batches of random rows, all levels; None for no end."""
    return StoreFeed(
        stores,
        islice(random_batches(len(stores), batch), count),
        batch_size=batch,
        levels=stores.pyramid.names,
        task=task_of(task),
        device=device,
    )


def step_of(
    name: str,
    device: torch.device = CPU,
    task: str = "segmentation",
    pyramid: PyramidSpec = PYRAMID,
    classes: int = CLASSES,
) -> Callable[[Batch], None]:
    """Forward, losses, backward and AdamW of a head with its paper's settings, as a run does them: on a GPU
    under bf16 autocast."""
    head = channels_last(build_head(name, task, pyramid, classes, seed=0).to(device).train())
    optimizer = build_optimizer(head, OptimizerConfig())

    def step(batch: Batch) -> None:
        generator = torch.Generator(device).manual_seed(0)
        with autocast(device, device.type == "cuda"):
            terms = head.losses(batch.features, batch.targets, batch.valid_hw, generator)
            loss = torch.stack([term.float() for term in terms.values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds(work: Callable[[], None], device: torch.device = CPU) -> float:
    """By the clock, until the device has done all of it."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def count_waits(work: Callable[[], object], device: torch.device) -> int | None:
    """Calls that made the host wait for the GPU, as torch counts them; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in caught)
