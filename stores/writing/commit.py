"""The commit, last step of an extraction: tables from the receipts, packed shards from the spools, then the
manifest that binds all files.

Tables and packed shards depend on the receipts and spools alone and are replaced whole, so a commit that was
killed is simply run again, and two at once write the same bytes. The manifest is created exclusively; nothing
in the store changes after it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stores.errors import IncompleteStore, IntegrityError, StoreError
from stores.format.arrays import metadata_files
from stores.format.canonical_json import canonical_json, diff_identity, sha256_hex
from stores.format.features import NAMES, PACKED
from stores.format.manifest import MANIFEST_NAME, PLAN_NAME, Manifest
from stores.format.plan import ShardId, StorePlan
from stores.format.plan_file import encode_plan, encode_tables
from stores.format.readme import README_NAME, readme
from stores.shards.disk import Files, folders_of, remove_if_there, replace_files, sync_folders
from stores.shards.exclusive import write_exclusive
from stores.shards.finished import FinishedShards
from stores.shards.receipt_pack import PACK_PATH
from stores.shards.receipt_tables import ReceiptTables
from stores.shards.spool import spool_path
from stores.writing.cleanup import remove_spooled
from stores.writing.packer import Packer

logger = logging.getLogger(__name__)

_MOST_NAMED = 20


def metadata_bytes(plan: StorePlan) -> dict[str, bytes]:
    """The content of every zarr.json, and of README.md where the store has one, by path."""
    found = {path: canonical_json(content) for path, content in metadata_files(plan).items()}
    return {**found, README_NAME: readme(plan)} if NAMES in plan.features else found


def commit_store(files: Files, root: Path, plan: StorePlan, finished: FinishedShards) -> None:
    """Writes the tables, then the manifest, unless another writer has.

    Raises:
        IncompleteStore: a shard has no valid receipt. PlanError: another writer has restarted it.
        OSError: the disk failed; run it again.
    """
    packer = Packer(files, root, plan, uuid.uuid4().hex) if PACKED in plan.features else None
    try:
        tables = _collect(files, root, plan, finished, packer)
        chunks = tables.chunks()
        replace_files(files, root, chunks, uuid.uuid4().hex)
        if packer is not None:
            packer.finish()
    except (OSError, StoreError):
        if packer is not None:
            packer.discard()
        raise
    manifest = manifest_of(plan, tables, chunks, packer)
    # A killed writer may have renamed files without syncing their folders. Sync all of them again, or a power
    # cut could leave a manifest of files that are not in place.
    shard_files = [path for shard in plan.shards() for path in finished.paths(shard)]
    in_place = [*manifest.files, *(manifest.packed or ()), *shard_files, "receipts/any"]
    sync_folders(files, [root.parent, *folders_of(root, in_place)])
    finished.refuse_another_plan()  # no writer can change the plan once every shard has a receipt
    write_exclusive(files, root / MANIFEST_NAME, manifest.to_bytes(), uuid.uuid4().hex)
    if packer is not None:
        remove_spooled(files, root, plan, manifest)


def _collect(
    files: Files, root: Path, plan: StorePlan, finished: FinishedShards, packer: Packer | None
) -> ReceiptTables:
    """Takes every unit, in the order of the plan, into the tables and the packed shards."""
    tables = ReceiptTables(plan)
    missing: list[ShardId] = []
    provenances: dict[bytes, Mapping[str, Any]] = {}
    for shard in plan.shards():
        receipt = finished.valid(shard)
        if receipt is None:
            missing.append(shard)
            continue
        tables.take(receipt)
        provenances.setdefault(canonical_json(receipt.provenance), receipt.provenance)
        if packer is None or missing:
            continue
        try:
            packer.take(receipt, finished.unit_rows.chunks(receipt))
        except IntegrityError:  # the unit is extracted again once its spool is gone
            remove_if_there(files, root / spool_path(plan.shard_name(shard)))
            missing.append(shard)
    if missing:
        named = ", ".join(plan.shard_name(shard) for shard in missing[:_MOST_NAMED])
        raise IncompleteStore(
            f"{root}: {len(missing)} of {len(plan.shards())} shards are not done: {named}; run it again"
        )
    _warn_of_differences(root, list(provenances.values()))
    return tables


def _warn_of_differences(root: Path, provenances: Sequence[Mapping[str, Any]]) -> None:
    """Warns of several devices or versions: not part of the identity, but the last bits may differ."""
    for other in provenances[1:]:
        for name, a, b in diff_identity(provenances[0], other):
            logger.warning("%s: shards were written with different %s: %s and %s", root, name, a, b)


def manifest_of(
    plan: StorePlan, tables: ReceiptTables, chunks: dict[str, bytes], packer: Packer | None
) -> Manifest:
    """The manifest of a store from all its receipts; `chunks` are those of `tables`."""
    bound = {PLAN_NAME: encode_plan(plan), **metadata_bytes(plan), **encode_tables(plan), **chunks}
    receipts = {} if packer is None else {PACK_PATH: packer.receipts_sha256}
    return Manifest(
        identity_sha256=plan.identity_digest,
        files={**{path: sha256_hex(data) for path, data in bound.items()}, **receipts},
        packed=None if packer is None else packer.shards,
        content_digest=tables.content_digest,
        receipts_sha256=tables.receipts_sha256,
        generations=tables.generations,
        skipped=tables.skipped,
    )
