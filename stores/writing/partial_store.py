"""Partial store: the finished shards of a store that is still being extracted, committed as a store.

The shard files are hard links to those of the extraction, so it takes little room, and neither the end of the
extraction nor its `work/` folder changes it. Rows of unfinished shards are skipped rows with a code of their
own. The store that is being extracted is read only.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stores.errors import StoreError
from stores.format.bounded_files import StoreFolder
from stores.format.manifest import MANIFEST_NAME
from stores.format.plan import ShardId
from stores.format.row_table import NOT_YET, WRITTEN
from stores.reading.committed_store import read_plan
from stores.shards.disk import Files, make_folders
from stores.shards.exclusive import write_exclusive
from stores.shards.finished import FinishedShards
from stores.shards.receipts import Receipt, receipt_path
from stores.shards.spool import spool_path
from stores.writing.writer import StoreWriter

REASON = "not extracted yet"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialStore:
    """A committed store of what was finished."""

    path: Path
    shards: int
    """Finished ones."""
    shards_planned: int
    rows: int
    """Written rows."""
    rows_planned: int


def commit_finished(store: Path, folder: Path) -> PartialStore:
    """Commits what is finished of `store` as a store in `folder`, which is on the same disk.

    Made twice with the same shards it is the same folder.

    Raises:
        NoSuchStore: no store at this path.
        StoreError: no row is written yet, or the disk has no hard links.
    """
    plan = read_plan(StoreFolder(store), None)  # its row tables are read when they are used
    files = Files()
    finished = FinishedShards(files, store, plan)
    found = {shard: finished.latest(shard)[1] for shard in plan.shards()}
    receipts = {
        shard: receipt for shard, receipt in found.items() if receipt and finished.damage(receipt) is None
    }
    rows = sum(receipt.outcome.count(WRITTEN) for receipt in receipts.values())
    if not rows:
        raise StoreError(f"{store}: no row is written yet; wait for the first shard")
    whole = len(plan.shards())
    made = PartialStore(
        path=folder / f"{store.name}-{len(receipts)}-of-{whole}",
        shards=len(receipts),
        shards_planned=whole,
        rows=rows,
        rows_planned=len(plan.rows),
    )
    if (made.path / MANIFEST_NAME).exists():
        return made
    place = folder / f"{uuid.uuid4().hex}.partial"
    try:
        writer = StoreWriter.open_or_create(place, plan, needed_bytes=0)
        _take(files, store, writer, receipts)
        writer.finish()
        os.rename(writer.path, made.path)
    except FileExistsError:  # another run has just made the same
        pass
    except OSError as error:
        if (made.path / MANIFEST_NAME).exists():
            return made
        raise StoreError(f"{store}: its finished shards cannot be linked into {folder}: {error}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return made


def _take(files: Files, store: Path, writer: StoreWriter, receipts: Mapping[ShardId, Receipt]) -> None:
    plan, root = writer.plan, writer.path
    for shard in plan.shards():
        receipt = receipts.get(shard)
        if receipt is None:
            left_out = writer.open_shard(shard)
            for row in left_out.rows:
                left_out.skip(row, NOT_YET, REASON, source_sha256=None)
            left_out.commit({}, {})
            continue
        spool = spool_path(plan.shard_name(shard))
        for path in (*receipt.files, *([] if receipt.spool is None else [spool])):
            make_folders(files, root, path.rpartition("/")[0])
            os.link(store / path, root / path)
        first = dataclasses.replace(receipt, generation=0)
        make_folders(files, root, "receipts")
        write_exclusive(files, root / receipt_path(plan, shard, 0), first.to_bytes(), uuid.uuid4().hex)
