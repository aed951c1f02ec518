"""Estimated size of a store: bytes, files and inodes, from its plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stores.format.arrays import PlannedStore, all_arrays, metadata_files, sharded_arrays
from stores.format.canonical_json import canonical_json
from stores.format.features import FLAT_KEYS, NAMES, PACKED
from stores.format.packing import COMPRESSED_TARGETS
from stores.format.targets import DenseTarget

_COMPRESSED_SHARE = {"pixels": 0.7, "differences": 0.5}
"""Compressed over raw size, for estimates only; measured on views of COCO: pixels 0.67, differences 0.46."""
_MEASURED_TARGETS = 0.6
"""The same of targets of numbers beyond a byte, such as depth or coordinates; label maps and bits compress to
COMPRESSED_TARGETS."""
MOSTLY_ZERO = 0.02
"""Stored over raw size of the high bytes of codes."""
_RECEIPT_BYTES, _RECEIPT_FILE_BYTES, _RECEIPT_ROW_BYTES, _RECEIPT_CRC_BYTES = 900, 130, 140, 11
_SMALL_FILES_BYTES = 12_000
"""plan.json, MANIFEST.json and README.md of a small store; for estimates only."""


@dataclass(frozen=True, slots=True)
class FileCount:
    """How many files a store has."""

    files: int
    """Of the finished store."""
    inodes: int
    """Files and folders of the finished store."""
    inodes_while_written: int
    """At most, with the receipts and spools of all work units."""


def count_files(plan: PlannedStore) -> FileCount:
    """The files and folders of a store by its plan, without its log."""
    metadata, units = len(metadata_files(plan)), sum(b.shards for b in plan.bins)
    is_packed, is_flat = PACKED in plan.features, FLAT_KEYS in plan.features
    files = metadata + (NAMES in plan.features) + 2  # plan.json and MANIFEST.json
    folders = metadata + 1  # one a zarr.json, and that of the receipts
    for spec in all_arrays(plan):
        files += spec.shards
        if not is_flat:  # c, and one below for each axis but the last
            folders += 1 + spec.shards * (len(spec.shape) - 1)
    files += 1 if is_packed else units
    waiting = 2 * units + 2 if is_packed else 0  # receipts, spools and the folders of these
    return FileCount(files, files + folders, files + folders + waiting)


def estimated_bytes(plan: PlannedStore) -> int:
    """Bytes on disk: exact for uncompressed features, scales, tables and metadata, an upper bound for
    compressed features, an estimate for the rest."""
    total = compressed_estimate(plan)
    for index, b in enumerate(plan.bins):
        specs = sharded_arrays(plan, index).values()
        total += level_estimate(plan, index) + sum(spec.shards * spec.index_bytes for spec in specs)
        total += b.shards * (_RECEIPT_BYTES + len(specs) * _RECEIPT_FILE_BYTES)
        total += b.rows * (_RECEIPT_ROW_BYTES + len(specs) * _RECEIPT_CRC_BYTES)
    tables = [spec for spec in all_arrays(plan) if spec.shard_rows is None]
    total += sum(len(canonical_json(content)) for content in metadata_files(plan).values())
    return int(total) + sum(spec.total_bytes for spec in tables) + _SMALL_FILES_BYTES


def level_estimate(plan: PlannedStore, bin_index: int) -> int:
    """Bytes of the levels of a bin with the chunks' checksums: exact where chunks are not compressed. The
    codes of q<error> are taken by their raw size, which is an upper bound, and `q_high` as almost empty."""
    total, rows = 0.0, plan.bins[bin_index].rows
    for name, spec in sharded_arrays(plan, bin_index).items():
        if name.startswith("levels/"):
            is_mostly_zero = spec.compressed and not name.endswith("/q")
            total += rows * spec.stored_row_bytes * (MOSTLY_ZERO if is_mostly_zero else 1)
    return int(total)


def compressed_estimate(plan: PlannedStore) -> float:
    """The part of `estimated_bytes` that is compressed: targets and pixels."""
    total = 0.0
    for index, b in enumerate(plan.bins):
        for name, spec in sharded_arrays(plan, index).items():
            if spec.compressed and not name.startswith("levels/"):
                raw = b.rows * spec.stored_row_bytes
                if name.startswith("targets/"):
                    raw = _raw_target_bytes(plan, index, name.removeprefix("targets/"), raw)
                total += _compressed_share(plan, name) * raw
    return total


def _compressed_share(plan: PlannedStore, name: str) -> float:
    if name == "pixels":
        return _COMPRESSED_SHARE["differences" if plan.pixel_differences else "pixels"]
    target = next(target for target in plan.targets if f"targets/{target.name}" == name)
    return COMPRESSED_TARGETS if np.dtype(target.dtype).itemsize == 1 else _MEASURED_TARGETS


def _raw_target_bytes(plan: PlannedStore, bin_index: int, name: str, dense_bytes: int) -> int:
    target = next(target for target in plan.targets if target.name == name)
    if isinstance(target, DenseTarget):
        return dense_bytes
    return target.all_planned_bytes(plan.rows.original_hw[plan.bin_rows[bin_index]])
