"""Which receipts contradict the tables and the skipped rows that a manifest binds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stores.format.arrays import all_arrays
from stores.format.manifest import Manifest
from stores.format.plan import ShardId, StorePlan
from stores.shards.receipt_tables import ReceiptTables


def contradicting_shards(
    plan: StorePlan, manifest: Manifest, tables: ReceiptTables, bound: Mapping[str, bytes]
) -> set[ShardId]:
    """The shards whose receipt says otherwise in a row; shards without a receipt are among them.

    Args:
        plan: of the store.
        manifest: of the store.
        tables: made of its receipts.
        bound: the tables on the disk by path, as far as their digests are the manifest's.
    """
    local = np.empty(len(plan.rows), dtype=np.int64)
    for rows in plan.bin_rows:
        local[rows] = np.arange(len(rows))

    def shard_of(row: int) -> ShardId:
        index = int(plan.rows.bin[row])
        return ShardId(index, int(local[row]) // plan.bins[index].shard_rows)

    found = {shard_of(skipped.row) for skipped in set(tables.skipped) ^ set(manifest.skipped)}
    shapes = {spec.chunk_file(): spec for spec in all_arrays(plan) if spec.shard_rows is None}
    bin_index = {b.name: index for index, b in enumerate(plan.bins)}
    for path, data in tables.chunks().items():
        if path not in bound or data == bound[path]:
            continue
        shape = (shapes[path].shape[0], -1)
        differ = np.frombuffer(data, np.uint8).reshape(shape) != np.frombuffer(bound[path], np.uint8).reshape(
            shape
        )
        rows_of_table = np.flatnonzero(differ.any(axis=1)).tolist()
        if path.startswith("rows/"):
            found |= {shard_of(row) for row in rows_of_table}
        else:
            index = bin_index[path.split("/")[1]]
            found |= {ShardId(index, row // plan.bins[index].shard_rows) for row in rows_of_table}
    return found
