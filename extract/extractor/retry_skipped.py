"""A second store in place of one that skipped records: its rows are copied, the skipped ones tried again.

The old store is read and not touched. The new one has the same plan and an identity that names the old one's
manifest, so neither is taken for the other. Shards that hold a skipped row are left to the extraction, which
computes all their rows.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from extract.sources.byte_sources import NOT_IN_SUBSET
from stores.format.plan import ShardId, StorePlan
from stores.reading.reader import Store
from stores.shards.disk import Files
from stores.shards.finished import FinishedShards
from stores.writing.shard_writer import ShardWriter
from stores.writing.writer import StoreWriter

logger = logging.getLogger(__name__)

RETRY_OF = "retry_of"
"""Field of an identity: sha256 of the manifest of the store whose skipped rows are tried again."""


def skipped_rows(store: Store) -> dict[tuple[str, int], str]:
    """The reasons of skipped rows by record key and view, without those outside a subset."""
    return {(key, view): reason for key, view, code, reason in store.skipped if code != NOT_IN_SUBSET}


def retry_plan(store: Store) -> StorePlan:
    """The plan of the store that takes the place of `store`, which may be closed after it."""
    rows = replace(store.plan.rows, params=np.asarray(store.plan.rows.params))  # read now: they are lazy
    identity = {**store.plan.identity, RETRY_OF: store.manifest_digest}
    return replace(store.plan, identity=identity, rows=rows)


def copy_sound_shards(store: Store, writer: StoreWriter) -> int:
    """Copies the shards of a complete store in which nothing was skipped; returns the rows written.

    Args:
        store: to copy from.
        writer: of its `retry_plan`. Shards that are done, or that another process works on, are passed over.

    Raises:
        IntegrityError: the old store is damaged. OSError: reading or writing failed.
    """
    plan, tried_again = writer.plan, skipped_rows(store)
    earlier = FinishedShards(Files(), Path(store.path), store.plan)
    copied = 0
    for shard in writer.pending():
        rows = [plan.global_row(shard.bin, row) for row in plan.shard_rows(shard)]
        if any((plan.rows.keys[row], int(plan.rows.view[row])) in tried_again for row in rows):
            continue
        name = plan.shard_name(shard)
        if writer.receipt(shard) is None and writer.claims.take(name):
            copied += _copy_shard(store, writer, shard, earlier)
            writer.claims.beat()
            writer.claims.release(name)
    logger.info("%s: %d rows copied from %s", writer.path, copied, store.path)
    return copied


def _copy_shard(store: Store, writer: StoreWriter, shard: ShardId, earlier: FinishedShards) -> int:
    """The rows written; 0 where another process was first."""
    receipt = earlier.latest(shard)[1]
    new = writer.open_shard(shard)
    try:
        written = sum(_copy_row(store, writer.plan, new, row) for row in new.rows)
        won = new.commit(receipt.provenance if receipt else {}, receipt.errors if receipt else {})
    except BaseException:
        new.abort()
        raise
    return written if won else 0


def _copy_row(store: Store, plan: StorePlan, new: ShardWriter, row: int) -> bool:
    """Whether it was written, and not outside the subset."""
    at = plan.global_row(new.shard.bin, row)
    number = store.find_row(plan.rows.keys[at], int(plan.rows.view[at]))
    if number is None:
        new.skip(row, NOT_IN_SUBSET, "not in the subset", source_sha256=None)
        return False
    new.put(
        row,
        {
            level: {part: array[0] for part, array in parts.items()}
            for level, parts in store.read_encoded([number]).items()
        },
        store.read_targets([number])[0],
        source_sha256=store.source_sha256[number].tobytes(),
        pixels=store.read_pixels([number])[0] if plan.pixels else None,
    )
    return True
