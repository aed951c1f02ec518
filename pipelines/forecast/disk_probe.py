"""Disk speed: batches written as an extraction writes them, and read back, in a temporary folder."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from extract.codecs.on_device import fitted_to_noise
from extract.extractor.batch_order import Batch, upcoming
from extract.extractor.codec_error import sample_cells
from extract.extractor.encode_batch import HostBatch, view_shape
from extract.extractor.memory import encoded_row_bytes
from extract.extractor.row_loader import LoadedRow, SkippedRow
from extract.extractor.shard_job import COMMITS_AT_ONCE, Item, ShardJob, shards_at_once, wait_for_room
from stores.format.plan import Bin, DenseTarget, ShardId, StorePlan, Target
from stores.format.row_table import UNDECODABLE
from stores.writing.writer import StoreWriter

SHARDS = 4
MOST_BYTES = 384 << 20
"""Of features that are written: a few seconds of a slow disk."""
_MADE_BYTES, _MADE_ROWS = 128 << 20, 64
"""Most made rows, which take turns: a few alone would stay in the processor's cache."""
_BLOCK = 1 << 20


def measure_disk(plan: StorePlan, folder: Path) -> dict[str, float]:
    """Writes the first shards of the plan's largest bin, or their first rows, and reads them.

    Args:
        plan: of the store; only its geometry is used.
        folder: where the store would lie, or the next one above that exists.

    Returns:
        `write_bytes_per_s` of features with fsync, receipts included; `write_processor_s_per_gb`, the seconds
        of one processor that this takes; `read_bytes_per_s` bypassing the page cache where the system
        supports it, and `cached_bytes_per_s` from the page cache.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".permafrost-speed-") as temporary:
        root = Path(temporary)
        written = write_shards(plan, root, SHARDS, MOST_BYTES)
        files = [path for path in root.rglob("*") if path.is_file() and path.stat().st_size > 4096]
        _forget(files)
        cold, warm = _read_rate(files), _read_rate(files)
    return {
        "write_bytes_per_s": written.bytes / written.seconds,
        "write_processor_s_per_gb": written.processor_s / written.bytes * 1e9,
        "read_bytes_per_s": cold,
        "cached_bytes_per_s": warm,
    }


class Written(NamedTuple):
    """What was written, and what it took."""

    bytes: int
    """Of features and scales."""
    seconds: float
    processor_s: float
    """Of all cores."""


def write_shards(plan: StorePlan, root: Path, shards_at_most: int, most_bytes: int) -> Written:
    """Writes shards of the plan's largest bin by the threads and in the order of an extraction, with made
    features and empty targets, as fast as they take batches. Making them does not count."""
    plan = fitted_to_noise(plan)
    index = max(range(len(plan.bins)), key=lambda i: plan.bins[i].rows * plan.bins[i].height_px)
    b = plan.bins[index]
    left = max(1, most_bytes // encoded_row_bytes(plan, b))
    shards = [ShardId(index, number) for number in range(min(shards_at_most, b.shards))]
    while len(shards) > 1 and sum(len(plan.shard_rows(shard)) for shard in shards) > left:
        shards.pop()
    writer = StoreWriter.open_or_create(root, plan, needed_bytes=0)
    made, written, stop = made_rows(plan, index), 0, threading.Event()
    jobs: dict[ShardId, ShardJob] = {}
    began, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(shards_at_once(plan) + COMMITS_AT_ONCE) as pool:
        try:
            for batch, _ in upcoming(plan, deque(shards), None):
                if batch.is_first:
                    wait_for_room(jobs.values(), plan)
                    jobs[batch.shard] = ShardJob(
                        pool, writer, batch.shard, provenance={}, codec_limit=None, stop=stop
                    )
                item = _item(plan, batch, made, min(left, len(batch.rows)))
                left, written = left - len(item.index_of), written + len(item.index_of)
                jobs[batch.shard].put(item)
                if batch.is_last:
                    jobs[batch.shard].end()
            for job in jobs.values():
                job.future.result()
        except BaseException:
            stop.set()
            raise
    return Written(
        written * encoded_row_bytes(plan, b), time.perf_counter() - began, time.process_time() - used
    )


def _item(plan: StorePlan, batch: Batch, made: HostBatch, count: int) -> Item:
    """A batch whose first `count` rows are written; the others are skipped."""
    b, index, sha256 = plan.bins[batch.shard.bin], batch.shard.bin, bytes(32)
    rows: dict[int, LoadedRow | SkippedRow] = {}
    for row in batch.rows[:count]:
        original_hw = plan.rows.original_hw[plan.global_row(index, row)].tolist()
        rows[row] = LoadedRow(
            pixels=np.zeros((*view_shape(plan, index), 3) if plan.pixels else 0, np.uint8),
            valid_hw=(b.height_px, b.width_px),
            targets={target.name: _no_target(target, b, original_hw) for target in plan.targets},
            source_sha256=sha256,
        )
    for row in batch.rows[count:]:
        rows[row] = SkippedRow(code=UNDECODABLE, reason="not part of the measurement", source_sha256=sha256)
    made_rows = len(next(iter(made.finite.values())))
    places = {row: row % made_rows for row in batch.rows[:count]}
    return Item(rows=rows, index_of=places, encoded=made if count else None)


def made_rows(plan: StorePlan, index: int) -> HostBatch:
    """Rows of the bin at `index`: noise through the codec, shifted from row to row."""
    b = plan.bins[index]
    count = max(1, min(_MADE_ROWS, _MADE_BYTES // encoded_row_bytes(plan, b)))
    row, cells = (
        _random_row(plan, b.height_px, b.width_px),
        sample_cells(plan, ShardId(index, 0), range(count)),
    )
    fine = {level.name: torch.ones(count, dtype=torch.bool) for level in plan.pyramid}
    return HostBatch(
        levels={
            level: {
                kind: torch.from_numpy(np.stack([np.roll(array, number) for number in range(count)]))
                for kind, array in kinds.items()
            }
            for level, kinds in row.items()
        },
        finite=fine,
        holds=fine,
        sample={
            level.name: (torch.randn(count, cells[level.name].shape[1], level.channels),) * 2
            for level in plan.pyramid
        },
        copied=None,
    )


def _random_row(plan: StorePlan, height: int, width: int) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    time = () if plan.frames is None else (plan.frames,)
    return {
        level.name: dict(
            plan.level_codec(level.name).encode(
                rng.standard_normal(
                    (*time, level.cells(height), level.cells(width), level.channels), dtype=np.float32
                )
            )
        )
        for level in plan.pyramid
    }


def _no_target(target: Target, b: Bin, original_hw: Sequence[int]) -> np.ndarray:
    """Zeros of a target's shape; nothing where its size is free."""
    if isinstance(target, DenseTarget):
        return np.zeros(target.row_shape(b.height_px, b.width_px), target.dtype)
    words = {"original_y": original_hw[0], "original_x": original_hw[1], -1: 0}
    return np.zeros([int(words.get(size, size)) for size in target.shape], target.dtype)


def _forget(files: list[Path]) -> None:
    """Asks the system to drop the files from its cache; their bytes are on the disk already."""
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_rate(files: list[Path]) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        total = sum(pool.map(_read_file, files))
    return total / (time.perf_counter() - began)


def _read_file(path: Path) -> int:
    buffer, total = bytearray(_BLOCK), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total
