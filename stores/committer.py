"""The last step of an extraction: what the receipts say becomes tables, and the manifest binds everything.

Tables are replaced whole and follow from the receipts alone, so a committer that was killed is simply run
again, and two at once write the same bytes. The manifest is created exclusively: after it nothing in the
store changes.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.arrays import ArraySpec, bin_tables, metadata_files, outcome_tables, sharded_arrays
from stores.canonical_json import canonical_json, sha256_hex
from stores.errors import IncompleteStore
from stores.files import Files, replace_files, write_exclusive
from stores.finished_shards import FinishedShards
from stores.layout import ShardId, StorePlan
from stores.manifest import MANIFEST_NAME, PLAN_NAME, Manifest, Skipped, receipts_digest
from stores.plan_file import encode_plan, encode_tables
from stores.receipts import Receipt, receipt_path
from stores.records import UNKNOWN, WRITTEN

_MOST_NAMED = 20


@dataclass(kw_only=True)
class _Tables:
    """The committer's tables while receipts are read into them, by path."""

    specs: dict[str, ArraySpec]
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.arrays = {path: np.zeros(spec.shape, spec.dtype) for path, spec in self.specs.items()}
        self.arrays["rows/outcome"][:] = UNKNOWN


def _tables_of(plan: StorePlan) -> _Tables:
    specs = list(outcome_tables(len(plan.rows)).values())
    for index in range(len(plan.bins)):
        specs += bin_tables(plan, index).values()
    return _Tables(specs={spec.path: spec for spec in specs})


def _take(tables: _Tables, plan: StorePlan, receipt: Receipt) -> list[Skipped]:
    """Copies what a receipt says of its rows into the tables; returns the rows it skipped."""
    shard = receipt.shard
    local = plan.shard_rows(shard)
    planned = plan.bin_rows[shard.bin][local.start : local.stop]
    tables.arrays["rows/outcome"][planned] = receipt.outcome
    for row, digest in zip(planned, receipt.source, strict=True):
        if digest is not None:
            tables.arrays["rows/source"][row] = np.frombuffer(bytes.fromhex(digest), np.uint8)
    for spec in sharded_arrays(plan, shard.bin).values():
        crcs = receipt.files[spec.chunk_file(shard.shard)].crc32c
        tables.arrays[spec.crc_path][local.start : local.stop] = [crc or 0 for crc in crcs]
    for name, lengths in receipt.lengths.items():
        path = f"bins/{plan.bins[shard.bin].name}/targets/{name}_bytes"
        tables.arrays[path][local.start : local.stop] = lengths
    return [
        Skipped(row=int(row), code=code, reason=receipt.reasons.get(str(position), ""))
        for position, (row, code) in enumerate(zip(planned, receipt.outcome, strict=True))
        if code != WRITTEN
    ]


def metadata_bytes(plan: StorePlan) -> dict[str, bytes]:
    """The content of every zarr.json by path."""
    return {path: canonical_json(content) for path, content in metadata_files(plan).items()}


def commit_store(files: Files, root: Path, plan: StorePlan, finished: FinishedShards) -> None:
    """Writes the tables, then the manifest, unless another committer has.

    Raises:
        IncompleteStore: a shard has no valid receipt.
        OSError: the disk failed; run it again.
    """
    tables, skipped = _tables_of(plan), []
    digests: list[tuple[str, str]] = []
    generations: dict[ShardId, int] = {}
    missing: list[ShardId] = []
    for shard in plan.shards():
        receipt = finished.valid(shard)
        if receipt is None:
            missing.append(shard)
            continue
        skipped += _take(tables, plan, receipt)
        digests.append((receipt_path(plan, shard, receipt.generation), sha256_hex(receipt.to_bytes())))
        if receipt.generation:
            generations[shard] = receipt.generation
    _refuse_missing(missing, plan, root)
    chunks = {
        spec.chunk_file(): tables.arrays[path].astype(spec.dtype).tobytes()
        for path, spec in tables.specs.items()
    }
    replace_files(files, root, chunks, uuid.uuid4().hex)
    bound = {PLAN_NAME: encode_plan(plan), **metadata_bytes(plan), **encode_tables(plan), **chunks}
    manifest = Manifest(
        identity_sha256=plan.identity_digest,
        files={path: sha256_hex(data) for path, data in bound.items()},
        receipts_sha256=receipts_digest(digests),
        generations=generations,
        skipped=tuple(sorted(skipped, key=lambda s: s.row)),
    )
    write_exclusive(files, root / MANIFEST_NAME, manifest.to_bytes(), uuid.uuid4().hex)


def _refuse_missing(missing: list[ShardId], plan: StorePlan, root: Path) -> None:
    if missing:
        named = ", ".join(f"{plan.bins[s.bin].name}-{s.shard}" for s in missing[:_MOST_NAMED])
        raise IncompleteStore(f"{root}: {len(missing)} of {len(plan.shards())} shards are not done: {named}")
