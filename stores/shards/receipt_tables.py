"""Tables computed from the receipts of a store: outcomes, sources, checksums and lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stores.format.array_spec import ArraySpec
from stores.format.arrays import bin_tables, outcome_tables, sharded_arrays
from stores.format.canonical_json import sha256_hex
from stores.format.features import CHUNK_DIGESTS
from stores.format.manifest import Skipped, receipts_digest
from stores.format.plan import ShardId, StorePlan
from stores.format.row_table import UNKNOWN, WRITTEN
from stores.shards.content_digest import content_digest
from stores.shards.receipts import Receipt, receipt_path


class ReceiptTables:
    """Collects the receipts of all shards, in the order of the plan, into the tables of the store."""

    def __init__(self, plan: StorePlan) -> None:
        self._plan = plan
        self._specs = _specs(plan)
        self._arrays: dict[str, npt.NDArray[Any]] = {s.path: np.zeros(s.shape, s.dtype) for s in self._specs}
        self._arrays["rows/outcome"][:] = UNKNOWN
        self._sharded = [sharded_arrays(plan, index) for index in range(len(plan.bins))]
        has_content = CHUNK_DIGESTS in plan.features
        self._content = np.zeros((len(plan.rows), 32), np.uint8) if has_content else None
        self._digests: list[tuple[str, str]] = []
        self._skipped: list[Skipped] = []
        self.generations: dict[ShardId, int] = {}
        """Of shards with several receipts: the generation of the valid one."""

    def take(self, receipt: Receipt) -> None:
        """Copies a receipt's entries for the rows of its shard."""
        plan, shard = self._plan, receipt.shard
        local = plan.shard_rows(shard)
        planned = plan.bin_rows[shard.bin][local.start : local.stop]
        self._arrays["rows/outcome"][planned] = receipt.outcome
        for row, digest in zip(planned, receipt.source, strict=True):
            if digest is not None:
                self._arrays["rows/source"][row] = np.frombuffer(bytes.fromhex(digest), np.uint8)
        packed = {} if receipt.spool is None else receipt.spool.crc32c
        for name, spec in self._sharded[shard.bin].items():
            crcs = packed[name] if spec.packed else receipt.files[spec.chunk_file(shard.shard)].crc32c
            self._arrays[spec.crc_path][local.start : local.stop] = [crc or 0 for crc in crcs]
        for name, lengths in receipt.lengths.items():
            path = f"bins/{plan.bins[shard.bin].name}/targets/{name}_bytes"
            self._arrays[path][local.start : local.stop] = lengths
        if self._content is not None and receipt.content is not None:
            for row, digest in zip(planned, receipt.content, strict=True):
                self._content[row] = np.frombuffer(bytes.fromhex(digest or ""), np.uint8) if digest else 0
        self._note(receipt, planned.tolist())

    def _note(self, receipt: Receipt, planned: list[int]) -> None:
        path = receipt_path(self._plan, receipt.shard, receipt.generation)
        self._digests.append((path, sha256_hex(receipt.to_bytes())))
        if receipt.generation:
            self.generations[receipt.shard] = receipt.generation
        for position, (row, code) in enumerate(zip(planned, receipt.outcome, strict=True)):
            if code != WRITTEN:
                reason = receipt.reasons.get(str(position), "")
                self._skipped.append(Skipped(row=row, code=code, reason=reason))

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """In plan order."""
        return tuple(sorted(self._skipped, key=lambda skipped: skipped.row))

    @property
    def receipts_sha256(self) -> str:
        """One digest of all receipts."""
        return receipts_digest(self._digests)

    @property
    def content_digest(self) -> str | None:
        """Of all rows, see stores.shards.content_digest; None in layouts without digests of rows."""
        if self._content is None:
            return None
        written = np.flatnonzero(self._arrays["rows/outcome"] == WRITTEN).tolist()
        return content_digest(self._plan, ((row, WRITTEN, self._content[row].tobytes()) for row in written))

    def chunks(self) -> dict[str, bytes]:
        """The tables' chunk files by path."""
        return {s.chunk_file(): self._arrays[s.path].astype(s.dtype).tobytes() for s in self._specs}


def _specs(plan: StorePlan) -> list[ArraySpec]:
    specs = list(outcome_tables(plan).values())
    for index in range(len(plan.bins)):
        specs += bin_tables(plan, index).values()
    return specs
