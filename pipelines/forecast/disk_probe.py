"""Disk speed: shards written with fsync and read back, in a temporary folder."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from extract.codecs.on_device import fitted_to_noise
from extract.extractor.encode_batch import view_shape
from extract.extractor.memory import encoded_row_bytes
from extract.extractor.run import shards_at_once
from stores.format.plan import Bin, DenseTarget, ShardId, StorePlan, Target
from stores.format.row_table import UNDECODABLE
from stores.writing.writer import StoreWriter

SHARDS = 4
MOST_BYTES = 384 << 20
"""Of features that are written: a few seconds of a slow disk."""
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
        used = time.process_time()
        written, seconds = write_shards(plan, root, SHARDS, MOST_BYTES)
        used = time.process_time() - used
        files = [path for path in root.rglob("*") if path.is_file() and path.stat().st_size > 4096]
        _forget(files)
        cold, warm = _read_rate(files), _read_rate(files)
    return {
        "write_bytes_per_s": written / seconds,
        "write_processor_s_per_gb": used / written * 1e9,
        "read_bytes_per_s": cold,
        "cached_bytes_per_s": warm,
    }


def write_shards(plan: StorePlan, root: Path, shards_at_most: int, most_bytes: int) -> tuple[int, float]:
    """Writes shards of the plan's largest bin, as an extraction does, with made features and empty targets.

    Returns:
        Bytes of features, and seconds.
    """
    plan = fitted_to_noise(plan)
    index = max(range(len(plan.bins)), key=lambda i: plan.bins[i].rows * plan.bins[i].height_px)
    b = plan.bins[index]
    most_rows = max(1, most_bytes // encoded_row_bytes(plan, b))
    shards = [ShardId(index, number) for number in range(min(shards_at_most, b.shards))]
    while len(shards) > 1 and sum(len(plan.shard_rows(shard)) for shard in shards) > most_rows:
        shards.pop()
    writer = StoreWriter.open_or_create(root, plan, needed_bytes=0)
    levels = _random_row(plan, b.height_px, b.width_px)
    began = time.perf_counter()
    with ThreadPoolExecutor(shards_at_once(plan)) as pool:
        rows = list(pool.map(partial(_write_shard, plan, writer, levels, most_rows), shards))
    return sum(rows) * encoded_row_bytes(plan, b), time.perf_counter() - began


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


def _write_shard(
    plan: StorePlan,
    writer: StoreWriter,
    levels: dict[str, dict[str, np.ndarray]],
    most_rows: int,
    shard_id: ShardId,
) -> int:
    """Rows written of the shard."""
    b, shard = plan.bins[shard_id.bin], writer.open_shard(shard_id)
    sha256, written = bytes(32), 0
    for row in shard.rows:
        if written == most_rows:
            shard.skip(row, UNDECODABLE, "not part of the measurement", source_sha256=sha256)
            continue
        original_hw = plan.rows.original_hw[plan.global_row(shard_id.bin, row)].tolist()
        targets = {target.name: _no_target(target, b, original_hw) for target in plan.targets}
        pixels = np.zeros((*view_shape(plan, shard_id.bin), 3), np.uint8) if plan.pixels else None
        shard.put(row, levels, targets, source_sha256=sha256, pixels=pixels)
        written += 1
    shard.commit({}, {})
    return written


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
