"""Progress of a store, and partial files that killed writers left in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stores.errors import FIX_PLAN, FormatError, IncompleteStore, IntegrityError
from stores.format.bounded_files import StoreFolder
from stores.format.canonical_json import parse_canonical
from stores.format.manifest import MANIFEST_NAME, PLAN_NAME
from stores.format.plan import MAX_PLAN_BYTES, Bin, StorePlan
from stores.format.row_table import WRITTEN
from stores.reading.committed_store import CommittedStore, read_committed, read_plan
from stores.shards.disk import Files, remove_if_there
from stores.shards.finished import FinishedShards
from stores.shards.receipts import Receipt

PARTIAL_SUFFIX = ".partial"


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


def store_status(path: str | Path) -> Status:
    """Progress of the store at `path`. Reads small files only and changes nothing.

    Raises NoSuchStore if there is none, IntegrityError if its plan, manifest or tables are damaged.
    """
    try:
        return _status_of_committed(read_committed(Path(path)))
    except IncompleteStore:
        folder = StoreFolder(Path(path))
        plan = _plan_of_unfinished(folder)
        if plan is None:
            return _status_of_barely_begun(folder)
        return _status_of_unfinished(plan, FinishedShards(Files(), Path(path), plan))


def _plan_of_unfinished(folder: StoreFolder) -> StorePlan | None:
    """The plan; None if a writer was killed before it had written the row tables, so before any receipt."""
    try:
        return read_plan(folder, None)
    except FormatError:
        raise
    except IntegrityError:
        if any((folder.path / "receipts").glob("*.json")):
            raise
        return None


def _status_of_barely_begun(folder: StoreFolder) -> Status:
    data = folder.read(PLAN_NAME, limit_bytes=MAX_PLAN_BYTES)
    bins = [Bin(**fields) for fields in parse_canonical(data, f"{folder.path}/{PLAN_NAME}", FIX_PLAN)["bins"]]
    missing = [f"{b.name}-{shard}" for b in bins for shard in range(b.shards)]
    rows = sum(b.rows for b in bins)
    return Status(complete=False, rows=rows, written=0, skipped=[], missing=tuple(missing))


def _status_of_committed(store: CommittedStore) -> Status:
    keys, views = store.plan.rows.keys, store.plan.rows.view
    return Status(
        complete=True,
        rows=len(store.outcome),
        written=int(np.count_nonzero(store.outcome == WRITTEN)),
        skipped=[(keys[s.row], int(views[s.row]), s.code, s.reason) for s in store.manifest.skipped],
        missing=(),
    )


def _status_of_unfinished(plan: StorePlan, finished: FinishedShards) -> Status:
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
        complete=False, rows=len(plan.rows), written=written, skipped=skipped, missing=tuple(missing)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphan:
    """A partial file that a killed writer left and no receipt claims."""

    path: Path
    bytes: int


def gc_orphans(path: str | Path, delete: bool = False) -> list[Orphan]:
    """The partial files in a store that no receipt claims; deleted with `delete`.

    Files of a running extraction look the same until their receipt is written, and deleting them loses the
    shards in progress: wait for it to end.

    Raises NoSuchStore if `path` is not a folder.
    """
    root = StoreFolder(Path(path)).path
    claimed = _claimed_partials(root)
    found = []
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            file = Path(folder, name)
            if name.endswith(PARTIAL_SUFFIX) and file not in claimed:
                found.append(Orphan(path=file, bytes=file.lstat().st_size))
    if delete:
        for orphan in found:
            remove_if_there(Files(), orphan.path)
    return sorted(found, key=lambda orphan: orphan.path)


def _claimed_partials(root: Path) -> set[Path]:
    """Partial files of finished shards that are not renamed yet; none in a committed store."""
    folder = StoreFolder(root)
    if folder.has(MANIFEST_NAME) or not folder.has(PLAN_NAME):
        return set()
    plan = _plan_of_unfinished(folder)
    if plan is None:
        return set()
    finished = FinishedShards(Files(), root, plan)
    receipts = [finished.latest(shard)[1] for shard in plan.shards()]
    return {path for receipt in receipts if receipt for path in finished.partials(receipt)}
