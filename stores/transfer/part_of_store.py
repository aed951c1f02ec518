"""Part of a store, some levels or some records, as a store of its own: a new identity, the same bytes.

The identity is that of the whole with `part_of`: the digest of its manifest, and of the list of records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stores.errors import LevelMissing, PlanError
from stores.format.canonical_json import sha256_hex
from stores.format.plan import Bin, ShardId, StorePlan, feature_row_bytes, shard_rows_for
from stores.format.row_table import RowTable
from stores.reading.reader import Store
from stores.writing.writer import StoreWriter

PART_OF = "part_of"
_ROWS_AT_ONCE = 8


def plan_of_part(store: Store, levels: Sequence[str] | None, keys: Collection[str] | None) -> StorePlan:
    """The plan of a part of a complete store.

    Args:
        store: the whole.
        levels: None for all.
        keys: of records; None for all.

    Raises LevelMissing, and PlanError for keys that the store was not planned with, or none.
    """
    whole = store.plan
    names = tuple(whole.pyramid.names if levels is None else levels)
    if missing := [name for name in names if name not in whole.pyramid.names]:
        raise LevelMissing(
            f"{store.path} holds no level {', '.join(missing)}; available: {', '.join(whole.pyramid.names)}"
        )
    kept = _kept_rows(store, keys)
    pyramid = whole.pyramid.select([name for name in whole.pyramid.names if name in names])
    table, bins = _rows(whole, kept), list[Bin]()
    renumbered = np.full(len(whole.bins), -1, np.int32)
    for index, b in enumerate(whole.bins):
        rows = int((whole.rows.bin[kept] == index).sum())
        if not rows:
            continue
        renumbered[index] = len(bins)
        row_bytes = feature_row_bytes(pyramid, whole.codec, b.height_px, b.width_px, whole.frames)
        shard_rows = b.shard_rows if keys is None else shard_rows_for(max(row_bytes.values()), rows)
        bins.append(replace(b, rows=rows, shard_rows=shard_rows))
    state = whole.codec_state
    part = {
        "manifest_sha256": store.manifest_digest,
        "records_sha256": None if keys is None else sha256_hex("\n".join(sorted(keys)).encode()),
    }
    return replace(
        whole,
        identity={**whole.identity, "levels": list(pyramid.names), PART_OF: part},
        pyramid=pyramid,
        bins=tuple(bins),
        rows=replace(table, bin=renumbered[table.bin]),
        codec_state=None if state is None else {name: state[name] for name in pyramid.names},
    )


def _kept_rows(store: Store, keys: Collection[str] | None) -> Any:
    """Plan rows of the part."""
    if keys is None:
        return np.arange(len(store.plan.rows))
    wanted, planned = set(keys), tuple(store.plan.rows.keys)
    if unknown := sorted(wanted - set(planned)):
        raise PlanError(
            f"{store.path} was planned without {len(unknown)} of {len(wanted)} records, as {unknown[0]!r}"
        )
    kept = np.flatnonzero([key in wanted for key in planned])
    if not len(kept):
        raise PlanError(f"no records are named, so there is no part of {store.path} to make")
    return kept


def _rows(whole: StorePlan, kept: Any) -> RowTable:
    rows = whole.rows
    keys = tuple(rows.keys)
    return RowTable(
        keys=tuple(keys[row] for row in kept.tolist()),
        view=rows.view[kept],
        params=np.asarray(rows.params)[kept],
        bin=rows.bin[kept],
        padded_hw=rows.padded_hw[kept],
        valid_hw=rows.valid_hw[kept],
        original_hw=rows.original_hw[kept],
    )


def fill_part(store: Store, writer: StoreWriter, on_row: Callable[[int], None] = lambda _: None) -> int:
    """Copies the rows that are missing of a part, then commits it; returns the rows copied now.

    Raises what reading and writing raise; a part that was interrupted is continued.
    """
    copied = 0
    skipped = {(key, view): (code, reason) for key, view, code, reason in store.skipped}
    for shard in writer.pending():
        copied += _fill_shard(store, writer, shard, skipped)
        on_row(len(writer.plan.shard_rows(shard)))
    writer.finish()
    return copied


def _fill_shard(
    store: Store, writer: StoreWriter, shard: ShardId, skipped: dict[tuple[str, int], tuple[int, str]]
) -> int:
    plan = writer.plan
    places = [plan.global_row(shard.bin, local) for local in plan.shard_rows(shard)]
    named = [(plan.rows.keys[row], int(plan.rows.view[row])) for row in places]
    found = [store.find_row(key, view) for key, view in named]
    into = writer.open_shard(shard)
    written = [(local, row) for local, row in zip(into.rows, found, strict=True) if row is not None]
    try:
        for local, row, name in zip(into.rows, found, named, strict=True):
            if row is None:
                code, reason = skipped[name]
                into.skip(local, code, reason, source_sha256=None)
        for start in range(0, len(written), _ROWS_AT_ONCE):
            some = written[start : start + _ROWS_AT_ONCE]
            rows = [row for _, row in some]
            store.prefetch([row for _, row in written[start:][_ROWS_AT_ONCE : 3 * _ROWS_AT_ONCE]] or rows)
            encoded, targets = store.read_encoded(rows, plan.pyramid.names), store.read_targets(rows)
            pixels = store.read_pixels(rows) if plan.pixels else None
            for at, (local, row) in enumerate(some):
                into.put(
                    local,
                    {lv: {kind: a[at] for kind, a in kinds.items()} for lv, kinds in encoded.items()},
                    targets[at],
                    source_sha256=bytes(store.source_sha256[row]),
                    pixels=None if pixels is None else pixels[at],
                )
        into.commit({"copied_from": store.manifest_digest}, {})
    finally:
        into.abort()
    return len(written)
