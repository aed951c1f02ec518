"""A store of another codec made of a complete one, without the backbone: rows are decoded and encoded again.

The new store has its parent's rows, views, targets and skipped rows in the layout of new stores. Its identity
holds the parent's content digest, so the error of both codecs is on record and neither store is taken for the
other. An interrupted conversion is continued by the same call.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.codecs import codec, find_codec
from stores.codecs.contract import Codec, FittedCodec, error_figures
from stores.errors import PlanError
from stores.format.features import LAYOUT, NEW_OPTIONAL, NEW_REQUIRED, WIDE_SHARDS
from stores.format.packing import targets_with_own_shards
from stores.format.plan import ShardId, StorePlan
from stores.plugins import provided_by
from stores.reading.reader import Store
from stores.shards.disk import Files
from stores.shards.finished import FinishedShards
from stores.subsets import key_order
from stores.writing.codec_fit import FIT_ROWS, cell_step, expected_bytes, fit_rule, fitted_to, stored_shares
from stores.writing.shard_writer import ShardWriter
from stores.writing.writer import StoreWriter

logger = logging.getLogger(__name__)

CONVERTED_FROM = "converted_from"
"""Field of an identity: codec and content digest of the store that was converted."""
MEASURED_VALUES = 1 << 18
"""Of a level, whose error is measured in a shard."""
_RATE_ROWS = 8
"""Whole rows that the size of the new store is estimated from."""

Maps = Mapping[str, npt.NDArray[np.float32]]


def converted_plan(store: Store, codec_name: str, content_digest: str) -> StorePlan:
    """The plan of the store's rows in another codec, not fitted yet; `store` may be closed after it.

    Args:
        store: complete.
        codec_name: another one than the store's.
        content_digest: of the store.

    Raises CodecError for an unknown codec, PlanError for the store's own.
    """
    plan, made = store.plan, codec(codec_name)
    if codec_name == plan.codec:
        raise PlanError(f"{store.path} has the codec {codec_name} already; choose another --codec")
    wide = (WIDE_SHARDS,) if WIDE_SHARDS in plan.required_features else ()
    return replace(
        plan,
        name=f"{plan.name.removesuffix(f'-{plan.codec}')}-{codec_name}",
        identity={
            **plan.identity,
            "codec": {
                "name": codec_name,
                "settings": {},
                **provided_by(find_codec(codec_name)[0].package),
                **fit_rule(made),
            },
            CONVERTED_FROM: {"codec": plan.codec, "content_digest": content_digest},
        },
        codec=codec_name,
        codec_state=None,
        rows=replace(plan.rows, params=np.asarray(plan.rows.params)),  # read now: they are lazy
        required_features=(*NEW_REQUIRED, *(f for f in plan.required_features if f not in LAYOUT), *wide),
        optional_features=NEW_OPTIONAL,
        own_shards=targets_with_own_shards(plan.targets, plan.bins, plan.rows.original_hw),
    )


def open_converted(store: Store, plan: StorePlan, folder: Path) -> StoreWriter:
    """The writer of the new store below `folder`: fits the codec where it takes a state and the store was not
    begun. Raises as `StoreWriter.open_or_create`."""
    if (folder / plan.folder_name / "plan.json").exists():
        return StoreWriter.open_or_create(folder, plan, needed_bytes=0)
    rows = _fit_rows(store)
    made = codec(plan.codec)
    if isinstance(made, FittedCodec):
        plan = plan.with_state(fitted_to(made, _cells(store, rows)))
        logger.info("codec %s: fitted to %d rows", plan.codec, len(rows))
    of_levels = {level: plan.level_codec(level) for level in plan.pyramid.names}
    shares = stored_shares(of_levels, [_features(store, row) for row in rows[:_RATE_ROWS]])
    return StoreWriter.open_or_create(folder, plan, needed_bytes=expected_bytes(plan, shares))


def _fit_rows(store: Store) -> list[int]:
    """Written rows, the first in the order of the hash of their keys."""
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(store.keys):
        rows_of.setdefault(key, []).append(row)
    found = [row for key in key_order(rows_of) for row in rows_of[key]]
    if not found:
        raise PlanError(f"{store.path} holds no rows: all were skipped")
    return found[:FIT_ROWS]


def _cells(store: Store, rows: list[int]) -> dict[str, list[npt.NDArray[np.float32]]]:
    found: dict[str, list[npt.NDArray[np.float32]]] = {level: [] for level in store.levels}
    for row in rows:
        for level, x in _features(store, row).items():
            cells = x.reshape(-1, x.shape[-1])
            found[level].append(cells[:: cell_step(len(cells), x.shape[-1])].copy())
    return found


def _features(store: Store, row: int) -> dict[str, npt.NDArray[np.float32]]:
    """By level float32 ([time,] y, x, channel)."""
    return {
        level: store.plan.level_codec(level).decode({kind: a[0] for kind, a in kinds.items()})
        for level, kinds in store.read_encoded([row]).items()
    }


def convert_shards(
    store: Store, writer: StoreWriter, progress: Callable[[int], None] = lambda rows: None
) -> int:
    """Writes what is missing of the new store and commits it, unless other processes still work on it.

    Args:
        store: the parent.
        writer: of `open_converted`.
        progress: called after each shard with the rows written so far.

    Returns the rows written by this call.

    Raises:
        IntegrityError: the parent is damaged. CodecError: a row that the codec cannot hold.
        OSError: reading or writing failed; run it again.
    """
    parent = FinishedShards(Files(), Path(store.path), store.plan)
    skipped = {(key, view): (code, reason) for key, view, code, reason in store.skipped}
    codecs = {level: writer.plan.level_codec(level) for level in writer.plan.pyramid.names}
    written = 0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "convert") as pool:
        for shard in writer.pending():
            name = writer.plan.shard_name(shard)
            if not writer.claims.take(name):
                continue
            work = _Shard(store, writer.plan, codecs, shard, skipped)
            try:
                done = work.write(writer.open_shard(shard), pool, parent)
            finally:
                writer.claims.release(name)
            written += done
            progress(written)
    if not writer.pending():
        writer.finish()
    return written


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One row on its way from codec to codec."""

    levels: Mapping[str, Mapping[str, npt.NDArray[Any]]]
    measured: Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
    """By level some cells (K, channel) before and after the new codec."""


@dataclass(slots=True)
class _Shard:
    """The conversion of one shard."""

    store: Store
    plan: StorePlan
    codecs: Mapping[str, Codec]
    shard: ShardId
    skipped: Mapping[tuple[str, int], tuple[int, str]]
    cells: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)

    def write(self, new: ShardWriter, pool: ThreadPoolExecutor, parent: FinishedShards) -> int:
        """The rows written; 0 where another process was first."""
        receipt = parent.latest(self.shard)[1]
        try:
            written = sum(self._put(new, local, row) for local, row in self._converted(new, pool))
            errors = self._errors({} if receipt is None else receipt.errors)
            made_by = {} if receipt is None else dict(receipt.provenance)
            won = new.commit({**made_by, "converted_with_numpy": np.__version__}, errors)
        except BaseException:
            new.abort()
            raise
        return written if won else 0

    def _number(self, local: int) -> tuple[tuple[str, int], int | None]:
        at = self.plan.global_row(self.shard.bin, local)
        place = self.plan.rows.keys[at], int(self.plan.rows.view[at])
        return place, self.store.find_row(*place)

    def _converted(self, new: ShardWriter, pool: ThreadPoolExecutor) -> Iterator[tuple[int, _Row | None]]:
        """Each row in order, a few of them ahead."""
        at_once = pool._max_workers
        for start in range(new.rows.start, new.rows.stop, at_once):
            some = range(start, min(start + at_once, new.rows.stop))
            yield from zip(some, pool.map(self._convert, some), strict=True)

    def _convert(self, local: int) -> _Row | None:
        """None for a row that the parent skipped."""
        number = self._number(local)[1]
        if number is None:
            return None
        levels, measured = {}, {}
        for level, x in _features(self.store, number).items():
            encoded = self.codecs[level].encode(x)
            decoded = self.codecs[level].decode(encoded).reshape(-1, x.shape[-1])
            step = max(1, x.size * len(self.plan.shard_rows(self.shard)) // MEASURED_VALUES)
            levels[level] = encoded
            measured[level] = x.reshape(decoded.shape)[local % step :: step], decoded[local % step :: step]
        return _Row(levels=levels, measured=measured)

    def _put(self, new: ShardWriter, local: int, row: _Row | None) -> bool:
        """Whether it was written, and not skipped by the parent."""
        place, number = self._number(local)
        if row is None or number is None:
            code, reason = self.skipped[place]
            new.skip(local, code, reason, source_sha256=None)
            return False
        for level, pair in row.measured.items():
            self.cells.setdefault(level, []).append(pair)
        new.put(
            local,
            row.levels,
            self.store.read_targets([number])[0],
            source_sha256=self.store.source_sha256[number].tobytes(),
            pixels=self.store.read_pixels([number])[0] if self.plan.pixels else None,
        )
        return True

    def _errors(self, of_parent: Mapping[str, Any]) -> dict[str, Any]:
        """By level those of the new codec, with the figures of the parent's receipt beside them."""
        found = {}
        for level, pairs in self.cells.items():
            x, decoded = (np.concatenate(half) for half in zip(*pairs, strict=True))
            figures: dict[str, Any] = {**error_figures(x, decoded), "cells": float(len(x))}
            found[level] = {**figures, "parent": of_parent.get(level, {})}
        return found
