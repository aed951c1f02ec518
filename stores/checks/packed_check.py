"""Packed shards and the file of all receipts, compared with a manifest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stores.errors import IntegrityError
from stores.format.array_spec import ArraySpec
from stores.format.arrays import packed_arrays
from stores.format.bounded_files import StoreFolder
from stores.format.manifest import Manifest
from stores.format.plan import ShardId, StorePlan
from stores.format.row_table import WRITTEN
from stores.remote.opening import files_of
from stores.shards.receipts import Receipt
from stores.shards.shard_check import check_shard_file
from stores.shards.shard_file import FileFigures
from stores.shards.unit_rows import UnitRows
from stores.shards.written_digest import hash_of


@dataclass(frozen=True, slots=True)
class PackedResult:
    """One packed shard compared."""

    bytes_read: int
    problem: str | None
    units: tuple[ShardId, ...] = ()
    """The units whose rows in it are damaged; empty where a new commit writes the shard again."""


def check_packed_shards(
    folder: StoreFolder,
    plan: StorePlan,
    manifest: Manifest,
    receipts: Mapping[ShardId, Receipt],
    *,
    full: bool,
) -> Iterator[PackedResult]:
    """Compares every packed shard of a committed store with its manifest and the receipts.

    Args:
        folder: of the store.
        plan: of the store.
        manifest: of the store.
        receipts: of all units whose receipt is sound.
        full: reads every byte.
    """
    bound = manifest.packed or {}
    rows = UnitRows(files_of(folder.path), folder.path, plan)
    expected = set()
    for index in range(len(plan.bins)):
        for name, spec in packed_arrays(plan, index).items():
            for number in range(spec.shards):
                path = spec.chunk_file(number)
                expected.add(path)
                units = _units_in(plan, index, spec, number)
                figures, written = _figures(plan, path, manifest, receipts, units, name)
                try:
                    if figures is None:
                        raise IntegrityError(f"{path} is not in the manifest")
                    read = check_shard_file(
                        folder, spec, path, figures, written, full=full, chunk_hash=hash_of(plan.features)
                    )
                    yield PackedResult(read, None)
                except IntegrityError as error:
                    held = [unit for unit in units if unit in receipts]
                    damaged = tuple(unit for unit in held if not rows.in_shards(receipts[unit]))
                    yield PackedResult(0, str(error), damaged)
    for path in sorted(bound.keys() - expected):
        yield PackedResult(0, f"{path} is in the manifest and not in the plan")


def packed_paths(plan: StorePlan) -> set[str]:
    """Of every packed shard."""
    return {
        spec.chunk_file(number)
        for index in range(len(plan.bins))
        for spec in packed_arrays(plan, index).values()
        for number in range(spec.shards)
    }


def _units_in(plan: StorePlan, bin_index: int, spec: ArraySpec, number: int) -> list[ShardId]:
    b, rows = plan.bins[bin_index], spec.shard_rows or 1
    first, last = number * rows, min((number + 1) * rows, b.rows) - 1
    return [ShardId(bin_index, unit) for unit in range(first // b.shard_rows, last // b.shard_rows + 1)]


def _figures(
    plan: StorePlan,
    path: str,
    manifest: Manifest,
    receipts: Mapping[ShardId, Receipt],
    units: Collection[ShardId],
    name: str,
) -> tuple[FileFigures | None, npt.NDArray[np.bool_]]:
    """What the manifest and the receipts say of a packed shard; of units without a sound receipt nothing is
    known, so that the shard will not compare equal."""
    crcs: list[int | None] = []
    outcome: list[int] = []
    for unit in units:
        receipt = receipts.get(unit)
        if receipt is None or receipt.spool is None:
            crcs += [None] * len(plan.shard_rows(unit))
            outcome += [WRITTEN + 1] * len(plan.shard_rows(unit))
        else:
            crcs += receipt.spool.crc32c[name]
            outcome += receipt.outcome
    shard = (manifest.packed or {}).get(path)
    figures = None if shard is None else FileFigures(shard.bytes, shard.digest, tuple(crcs))
    return figures, np.array(outcome) == WRITTEN
