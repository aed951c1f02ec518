"""StoreWriter: creates a store from its plan, or goes on with one that was begun."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stores.errors import MEND_PLAN, IdentityError, IntegrityError, PlanError, SpaceError, StoreError
from stores.format.canonical_json import diff_identity, parse_canonical, sha256_hex
from stores.format.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, PLAN_NAME, decode_manifest
from stores.format.plan import MAX_PLAN_BYTES, Bin, ShardId, StorePlan
from stores.format.plan_file import check_features, check_format, encode_plan, encode_tables
from stores.shards.disk import Files, make_folders, read_whole, replace_files, sync_folders, write_exclusive
from stores.shards.finished import FinishedShards
from stores.shards.receipts import Receipt
from stores.writing.commit import commit_store, metadata_bytes
from stores.writing.shard_writer import ShardWriter

logger = logging.getLogger(__name__)

_ADOPTED = ("shard_rows", "batch_rows")
"""Geometry that the plan on disk decides: another batch size or shard size goes on with what was begun."""


class StoreWriter:
    """One store being extracted; several may write it at once, in one process or many."""

    def __init__(self, files: Files, root: Path, plan: StorePlan) -> None:
        self._files, self._root, self._plan = files, root, plan
        self._finished = FinishedShards(files, root, plan)

    @classmethod
    def open_or_create(
        cls,
        root_folder: Path,
        plan: StorePlan,
        *,
        needed_bytes: int | None = None,
        files: Files | None = None,
    ) -> StoreWriter:
        """The writer of `root_folder / plan.folder_name`, created where there is none.

        A plan on disk that differs only in shard or batch rows wins: `plan` of the writer is then that one.

        Args:
            root_folder: holds stores; created where it is missing.
            plan: what is to be written.
            needed_bytes: what a new store takes on the disk; None: all of the plan. Less where rows are left
                out on purpose: their place in the shard files is a hole.
            files: the operations to use; for tests.

        Raises:
            IdentityError: the store there has another identity; names the field and both values.
            PlanError: it has the same identity but other rows, levels or targets.
            IntegrityError: its plan or manifest is damaged.
            SpaceError: a new store does not fit; nothing was written.
        """
        files = files or Files()
        root = Path(root_folder) / plan.folder_name
        data = _read_if_there(files, root / PLAN_NAME, MAX_PLAN_BYTES)
        if data is None:
            data = _create(files, root, plan, plan.total_bytes if needed_bytes is None else needed_bytes)
        settled = _settle(plan, data, str(root))
        writer = cls(files, root, settled)
        manifest = _read_if_there(files, root / MANIFEST_NAME, MAX_MANIFEST_BYTES)
        if manifest is None:
            writer._fill_in()
        elif decode_manifest(manifest, f"{root}/{MANIFEST_NAME}").files.get(PLAN_NAME) != sha256_hex(data):
            if _read_if_there(files, root / PLAN_NAME, MAX_PLAN_BYTES) != data:  # begun anew meanwhile
                return cls.open_or_create(root_folder, plan, files=files)
            raise IntegrityError(f"{root}: plan.json was changed after the store was committed; {MEND_PLAN}")
        return writer

    @property
    def path(self) -> Path:
        return self._root

    @property
    def plan(self) -> StorePlan:
        """The plan that is being carried out; see open_or_create."""
        return self._plan

    @property
    def complete(self) -> bool:
        """Whether the store has its manifest."""
        return _read_if_there(self._files, self._root / MANIFEST_NAME, MAX_MANIFEST_BYTES) is not None

    def pending(self, *, full: bool = False) -> list[ShardId]:
        """The shards that are still to be written, in the order of the plan.

        Finishes renames that a killed writer left. A shard whose files are missing or have another length
        is pending again; with `full` one with any other byte too, at the cost of reading everything.
        """
        if self.complete:
            return []
        finished = self.finished(full=full)
        return [shard for shard in self._plan.shards() if shard not in finished]

    def finished(self, *, full: bool = False) -> dict[ShardId, Receipt]:
        """The receipts of the shards that are done, in the order of the plan; see pending."""
        receipts = ((shard, self._finished.valid(shard, full=full)) for shard in self._plan.shards())
        return {shard: receipt for shard, receipt in receipts if receipt is not None}

    def open_shard(self, shard: ShardId) -> ShardWriter:
        """A writer of one shard. Raises OSError where the disk failed or is full."""
        return ShardWriter(self._files, self._root, self._plan, shard, self._finished)

    def set_batch_rows(self, batch_rows: Sequence[int]) -> None:
        """Begins the store anew with other rows a batch, while no shard is finished.

        The folder is moved aside first: nobody can finish a shard in it from then on, and other writers of
        the old plan find another one or none. (A plan that is replaced where it stands could be replaced
        after another writer's manifest.)

        Raises PlanError where a shard is finished, since rows of other batches could differ from its rows in
        the last bits, or where another writer has begun it anew with other batches.
        """
        bins = tuple(replace(b, batch_rows=rows) for b, rows in zip(self._plan.bins, batch_rows, strict=True))
        self._refuse_receipts(self._root)
        aside = self._root.with_name(f"{self._root.name}.{uuid.uuid4().hex}.discarded")
        self._files.rename(self._root, aside)
        try:
            self._refuse_receipts(aside)
        except PlanError:
            self._files.rename(aside, self._root)
            raise
        self._files.remove_tree(aside)
        anew = StoreWriter.open_or_create(
            self._root.parent, replace(self._plan, bins=bins), files=self._files
        )
        self._plan, self._finished = anew._plan, anew._finished
        if self._plan.bins != bins:
            raise PlanError(f"{self._root}: another writer has planned other batches; run it again")

    def _refuse_receipts(self, root: Path) -> None:
        finished = FinishedShards(self._files, root, self._plan)
        if any(finished.latest(shard)[0] >= 0 for shard in self._plan.shards()):
            raise PlanError(f"{self._root}: shards are finished, so the rows of a batch are settled")

    def finish(self) -> str:
        """Writes what follows from the receipts and, last, the manifest; its sha256. Harmless when repeated.

        Raises:
            IncompleteStore: a shard has no valid receipt.
            PlanError: another writer has begun it anew, with other batches.
            OSError: the disk failed; run it again.
        """
        if self.complete:
            sync_folders(self._files, [self._root])  # whoever wrote the manifest may have died before this
        else:
            commit_store(self._files, self._root, self._plan, self._finished)
        return sha256_hex(read_whole(self._files, self._root / MANIFEST_NAME, MAX_MANIFEST_BYTES))

    def _fill_in(self) -> None:
        """Writes the planned tables and all metadata, as far as they do not stand there already."""
        make_folders(self._files, self._root, "receipts")
        wanted = {**encode_tables(self._plan), **metadata_bytes(self._plan)}
        missing = {path: data for path, data in wanted.items() if not self._holds(path, data)}
        if missing:
            replace_files(self._files, self._root, missing, uuid.uuid4().hex)

    def _holds(self, path: str, data: bytes) -> bool:
        try:
            return read_whole(self._files, self._root / path, len(data)) == data
        except (FileNotFoundError, StoreError):  # StoreError: longer than it should be
            return False


def _read_if_there(files: Files, path: Path, limit_bytes: int) -> bytes | None:
    try:
        return read_whole(files, path, limit_bytes)
    except FileNotFoundError:
        return None


def _create(files: Files, root: Path, plan: StorePlan, needed_bytes: int) -> bytes:
    """Writes plan.json, the first file of a store; returns the one there, perhaps another writer's."""
    data = encode_plan(plan)
    root = root.absolute()
    missing = [folder for folder in reversed([root, *root.parents]) if not folder.is_dir()]
    free = files.free_bytes(missing[0].parent if missing else root)
    if free < needed_bytes:
        raise SpaceError(str(root), needed_bytes, free)
    for folder in missing:
        files.make_folder(folder)
        sync_folders(files, [folder.parent])
    write_exclusive(files, root / PLAN_NAME, data, uuid.uuid4().hex)
    return read_whole(files, root / PLAN_NAME, MAX_PLAN_BYTES)


def _settle(plan: StorePlan, data: bytes, what: str) -> StorePlan:
    """The plan with the geometry of the plan.json in `data`; raises where anything else differs."""
    theirs = parse_canonical(data, f"{what}/{PLAN_NAME}", MEND_PLAN)
    check_format(theirs, what)
    check_features(theirs, what)
    ours = parse_canonical(encode_plan(plan), "the plan")
    if not isinstance(theirs.get("identity"), dict) or not isinstance(theirs.get("bins"), list):
        raise IntegrityError(f"{what}/{PLAN_NAME} was damaged: it has no identity or bins; {MEND_PLAN}")
    for field, expected, found in diff_identity(ours["identity"], theirs["identity"]):
        raise IdentityError(field, expected, found, f"{what} holds another extraction")
    for field, expected, found in diff_identity(_without_adopted(ours), _without_adopted(theirs)):
        raise PlanError(
            f"{what} has the same identity but another plan: {field} should be {str(expected)[:200]}, "
            f"found {str(found)[:200]}"
        )
    settled = replace(plan, bins=tuple(Bin(**fields) for fields in theirs["bins"]))
    if settled.bins != plan.bins:
        logger.info("%s: going on with the shard and batch rows it was begun with", what)
    return settled


def _without_adopted(content: dict[str, Any]) -> dict[str, Any]:
    bins = [{name: value for name, value in b.items() if name not in _ADOPTED} for b in content["bins"]]
    return {**content, "bins": bins}
