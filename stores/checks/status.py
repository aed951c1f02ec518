"""Progress of a store: rows written and skipped, shards that are missing, and who works on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stores.errors import FIX_PLAN, FormatError, IncompleteStore, IntegrityError
from stores.format.bounded_files import StoreFolder
from stores.format.canonical_json import parse_canonical, sha256_hex
from stores.format.manifest import PLAN_NAME
from stores.format.plan import MAX_PLAN_BYTES, Bin, StorePlan
from stores.format.row_table import WRITTEN
from stores.reading.committed_store import CommittedStore, read_committed, read_plan
from stores.remote.opening import files_of, open_folder, unfinished_claims_on
from stores.shards.finished import FinishedShards
from stores.shards.receipts import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Progress of a store."""

    complete: bool
    """Whether it has a manifest."""
    rows: int
    """Planned rows."""
    written: int
    skipped: list[tuple[str, int, int, str]]
    """(record key, view, outcome code, reason) of skipped rows."""
    missing: tuple[str, ...]
    """Unfinished shards, as "<bin>-<shard>"."""
    claimed: Mapping[str, str]
    """Those that a process may be working on, and which."""
    content_digest: str | None = None
    """Of what the rows hold; None before the commit and in stores of older layouts."""


def store_status(path: str | Path) -> Status:
    """Progress of the store at `path`. Reads small files only and changes nothing.

    Raises NoSuchStore if there is none, IntegrityError if its plan, manifest or tables are damaged.
    """
    try:
        return _status_of_committed(read_committed(path))
    except IncompleteStore:
        folder = open_folder(path)
        plan = plan_of_unfinished(folder)
        if plan is None:
            return _status_of_barely_begun(folder)
        digest = sha256_hex(folder.read(PLAN_NAME, limit_bytes=MAX_PLAN_BYTES))
        finished = FinishedShards(files_of(folder.path), folder.path, plan, digest)
        return _status_of_unfinished(plan, finished, _claimed(folder.path))


def plan_of_unfinished(folder: StoreFolder) -> StorePlan | None:
    """The plan; None if a writer was killed before it had written the row tables, so before any receipt."""
    try:
        return read_plan(folder, None)
    except FormatError:
        raise
    except IntegrityError:
        if any(path.startswith("receipts/") for path in folder.files()):
            raise
        return None


def _status_of_barely_begun(folder: StoreFolder) -> Status:
    data = folder.read(PLAN_NAME, limit_bytes=MAX_PLAN_BYTES)
    bins = [Bin(**fields) for fields in parse_canonical(data, f"{folder.path}/{PLAN_NAME}", FIX_PLAN)["bins"]]
    missing = [f"{b.name}-{shard}" for b in bins for shard in range(b.shards)]
    rows = sum(b.rows for b in bins)
    return Status(complete=False, rows=rows, written=0, skipped=[], missing=tuple(missing), claimed={})


def _status_of_committed(store: CommittedStore) -> Status:
    keys, views = store.plan.rows.keys, store.plan.rows.view
    return Status(
        complete=True,
        rows=len(store.outcome),
        written=int(np.count_nonzero(store.outcome == WRITTEN)),
        skipped=[(keys[s.row], int(views[s.row]), s.code, s.reason) for s in store.manifest.skipped],
        content_digest=store.manifest.content_digest,
        missing=(),
        claimed={},
    )


def _claimed(root: Path) -> dict[str, str]:
    """Reads only: whether a claim of another machine still moves is not looked at."""
    return {
        name: holder.describe() if holder else "a process that has just begun"
        for name, holder in unfinished_claims_on(root).items()
    }


def _status_of_unfinished(plan: StorePlan, finished: FinishedShards, claimed: Mapping[str, str]) -> Status:
    written, missing = 0, []
    skipped: list[tuple[str, int, int, str]] = []
    for shard in plan.shards():
        receipt = finished.latest(shard)[1]
        if receipt is None or finished.damage(receipt):
            missing.append(plan.shard_name(shard))
            continue
        written += receipt.outcome.count(WRITTEN)
        skipped += _skipped(plan, receipt)
    return Status(
        complete=False,
        rows=len(plan.rows),
        written=written,
        skipped=skipped,
        missing=tuple(missing),
        claimed={name: who for name, who in claimed.items() if name in missing},
    )


def _skipped(plan: StorePlan, receipt: Receipt) -> list[tuple[str, int, int, str]]:
    found = []
    for position, (local, code) in enumerate(
        zip(plan.shard_rows(receipt.shard), receipt.outcome, strict=True)
    ):
        if code != WRITTEN:
            row = plan.global_row(receipt.shard.bin, local)
            reason = receipt.reasons.get(str(position), "")
            found.append((plan.rows.keys[row], int(plan.rows.view[row]), code, reason))
    return found
