"""Bits of a stored value by level: what the files of a shard take over the values they hold."""

from __future__ import annotations

import math
from collections.abc import Mapping

from stores.format.array_spec import CRC_BYTES, ArraySpec
from stores.format.arrays import sharded_arrays
from stores.format.plan import ShardId, StorePlan
from stores.shards.shard_file import FileFigures


def level_rates(
    plan: StorePlan, shard: ShardId, files: Mapping[str, FileFigures], written: int
) -> dict[str, float]:
    """By level, for a shard of which `written` rows hold data (1 or more): bits of a value, those of scales
    among them, without checksums and indices.

    Args:
        plan: of the store.
        shard: the unit.
        files: the figures of its shard files by path.
        written: its rows that were not skipped.
    """
    stored: dict[str, float] = dict.fromkeys(plan.pyramid.names, 0)
    b = plan.bins[shard.bin]
    for name, spec in sharded_arrays(plan, shard.bin).items():
        kind, _, rest = name.partition("/")
        if kind == "levels":
            stored[rest.partition("/")[0]] += _stored_bytes(spec, shard, files, written)
    frames = plan.frames or 1
    return {
        level.name: 8 * stored[level.name] / (written * frames * math.prod(cells) * level.channels)
        for level in plan.pyramid
        for cells in [(level.cells(b.height_px), level.cells(b.width_px))]
    }


def _stored_bytes(spec: ArraySpec, shard: ShardId, files: Mapping[str, FileFigures], written: int) -> int:
    if not spec.compressed:
        return written * spec.row_bytes
    return files[spec.chunk_file(shard.shard)].bytes - spec.index_bytes - CRC_BYTES * written
