"""A store of the size and shape of SwinV2-B's int8 pyramids at 512 px, with random content."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stores.one_bin import rows_of_one_bin
from stores.format.features import NEW_OPTIONAL, NEW_REQUIRED
from stores.format.plan import Bin, ShardId, StorePlan, feature_row_bytes, shard_rows_for
from stores.pyramid import Level, PyramidSpec
from stores.shards.disk import Files
from stores.writing.writer import StoreWriter

SIDE_PX = 512
PYRAMID = PyramidSpec(
    tuple(
        Level(name=f"p{stage + 1}", stride_px=2 << stage, channels=64 << stage, stage=stage)
        for stage in (1, 2, 3, 4)
    )
)
ROW_BYTES = feature_row_bytes(PYRAMID, "int8", SIDE_PX, SIDE_PX)
DISTINCT_ROWS = 16
"""Random rows are dear: so many are made, and written again and again."""

Row = dict[str, dict[str, np.ndarray[Any, Any]]]


def plan_of(size_gb: float) -> StorePlan:
    """A plan of about this size; shards as the format's rule cuts them."""
    rows = max(16, round(size_gb * 1e9 / sum(ROW_BYTES.values())))
    table = rows_of_one_bin(rows, SIDE_PX)
    shard_rows = shard_rows_for(max(ROW_BYTES.values()), rows)
    return StorePlan(
        name="random-training-swinv2-b-int8",
        identity={"dataset": "random", "model": "swinv2-b", "codec": "int8", "rows": rows},
        pyramid=PYRAMID,
        codec="int8",
        codec_settings={},
        bins=(Bin(height_px=SIDE_PX, width_px=SIDE_PX, rows=rows, shard_rows=shard_rows),),
        targets=(),
        view_params=(),
        rows=table,
        required_features=NEW_REQUIRED,
        optional_features=NEW_OPTIONAL,
    )


def random_rows() -> list[Row]:
    """What int8 leaves of features: q of full range and a scale for each channel."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(DISTINCT_ROWS):
        row: Row = {}
        for level in PYRAMID:
            cells = level.cells(SIDE_PX)
            q = generator.integers(-127, 128, (cells, cells, level.channels), dtype=np.int8)
            scale = generator.random(level.channels, dtype=np.float32) + 0.01
            row[level.name] = {"q": q, "scale": scale.astype(np.float32)}
        rows.append(row)
    return rows


def write_store(
    root: Path, plan: StorePlan, rows: list[Row], *, files: Files | None = None, threads: int = 1
) -> Path:
    """The whole store, each thread at a shard of its own."""
    writer = StoreWriter.open_or_create(root, plan, files=files)

    def write_shard(shard: ShardId) -> None:
        shard_writer = writer.open_shard(shard)
        for position, row in enumerate(shard_writer.rows):
            shard_writer.put(row, rows[position % len(rows)], {}, source_sha256=bytes(32))
        shard_writer.commit({}, {})

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write_shard, writer.pending()))
    writer.finish()
    return writer.path
