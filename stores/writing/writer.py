"""StoreWriter: creates a store from its plan, or continues an unfinished one."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from stores.errors import FIX_PLAN, IdentityError, IntegrityError, PlanError, SpaceError, StoreError
from stores.format.array_spec import ArraySpec
from stores.format.canonical_json import diff_identity, normalized, parse_canonical, sha256_hex
from stores.format.features import FITTED_CODEC, KNOWN_REQUIRED, LAYOUT, PACKED
from stores.format.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, PLAN_NAME, decode_manifest
from stores.format.plan import MAX_PLAN_BYTES, Bin, ShardId, StorePlan
from stores.format.plan_file import (
    check_features,
    check_format,
    decode_state,
    encode_plan,
    encode_state,
    encode_tables,
    plan_content,
)
from stores.remote.opening import claims_on, files_of, remove_work_of
from stores.remote.store_url import StoreUrl, store_path
from stores.shards.disk import Files, make_folders, read_whole, replace_files, sync_folders
from stores.shards.exclusive import write_exclusive
from stores.shards.finished import FinishedShards
from stores.shards.receipts import Receipt
from stores.work.claims import Claims
from stores.work.holder import Holder
from stores.writing.cleanup import remove_other_states, remove_spooled
from stores.writing.commit import commit_store, metadata_bytes
from stores.writing.shard_writer import ShardWriter

logger = logging.getLogger(__name__)

COMMIT = "commit"
"""Name of the claim of a writer that commits the store."""
_ADOPTED = ("shard_rows", "batch_rows")
"""Geometry taken from the plan on disk: a run with another batch or shard size continues with these, and in
the layout that the store was begun with."""


_OF_LAYOUT = ("data_licence", "weights_licence", "backbone_costs", "own_shards", "codec_state")
"""Fields of plan.json that change how content is laid out or described, and not what it is."""


class StoreWriter:
    """A store being extracted; several writers may work at once, in one process or many."""

    def __init__(self, files: Files, root: Path, plan: StorePlan) -> None:
        self._files, self._root, self._plan = files, root, plan
        self._finished = FinishedShards(files, root, plan)
        self._claims = claims_on(root)

    @classmethod
    def open_or_create(
        cls,
        root_folder: Path,
        plan: StorePlan,
        *,
        needed_bytes: int | None = None,
        files: Files | None = None,
    ) -> StoreWriter:
        """The writer of `root_folder / plan.folder_name`, which is created if it does not exist.

        A plan on disk that differs only in shard or batch rows takes precedence: the writer's `plan` is then
        that one.

        Args:
            root_folder: holds stores; created if it is missing.
            plan: what is to be written.
            needed_bytes: disk space of a new store; None: that of the whole plan. It is less if rows are
                skipped on purpose: they leave holes in the shard files.
            files: file operations to use; for tests.

        Raises:
            IdentityError: the store there has another identity; names the field and both values.
            PlanError: it has the same identity but other rows, levels or targets.
            IntegrityError: its plan or manifest is damaged.
            SpaceError: a new store does not fit; nothing was written.
        """
        root = store_path(root_folder) / plan.folder_name
        files = files or files_of(root)
        data = _read_if_there(files, root / PLAN_NAME, MAX_PLAN_BYTES)
        if data is None and _read_if_there(files, root / MANIFEST_NAME, MAX_MANIFEST_BYTES) is not None:
            data = _read_if_there(files, root / PLAN_NAME, MAX_PLAN_BYTES)  # another writer was quick
            if data is None:
                raise IntegrityError(
                    f"{root}: {PLAN_NAME} is missing while {MANIFEST_NAME} is there; {FIX_PLAN}"
                )
        if data is None:
            data = _create(files, root, plan, plan.total_bytes if needed_bytes is None else needed_bytes)
        settled = _settle(plan, data, str(root), partial(_read_state_table, files, root))
        writer = cls(files, root, settled)
        manifest = _read_if_there(files, root / MANIFEST_NAME, MAX_MANIFEST_BYTES)
        if manifest is None:
            writer._fill_in()
        elif decode_manifest(manifest, f"{root}/{MANIFEST_NAME}").files.get(PLAN_NAME) != sha256_hex(data):
            if _read_if_there(files, root / PLAN_NAME, MAX_PLAN_BYTES) != data:  # restarted meanwhile
                return cls.open_or_create(root_folder, plan, files=files)
            raise IntegrityError(f"{root}: plan.json was changed after the store was committed; {FIX_PLAN}")
        return writer

    @property
    def path(self) -> Path:
        return self._root

    @property
    def plan(self) -> StorePlan:
        """The plan in use; see open_or_create."""
        return self._plan

    @property
    def complete(self) -> bool:
        """Whether the store has a manifest."""
        return _read_if_there(self._files, self._root / MANIFEST_NAME, MAX_MANIFEST_BYTES) is not None

    def pending(self, *, full: bool = False) -> list[ShardId]:
        """The shards still to be written, in the order of the plan.

        Completes renames that a killed writer left. A shard with a missing file or a wrong length is pending
        again; with `full` one with any wrong byte too, at the cost of reading everything.
        """
        if self.complete:
            return []
        finished = self.finished(full=full)
        missing = [shard for shard in self._plan.shards() if shard not in finished]
        # Another writer's commit, which deletes spools, may have come between.
        return [] if missing and self.complete else missing

    def finished(self, *, full: bool = False) -> dict[ShardId, Receipt]:
        """The receipts of the shards that are done, in the order of the plan; see pending."""
        receipts = ((shard, self._finished.valid(shard, full=full)) for shard in self._plan.shards())
        return {shard: receipt for shard, receipt in receipts if receipt is not None}

    @property
    def claims(self) -> Claims:
        """Which shards this writer and others work on."""
        return self._claims

    def use_claims(self, claims: Claims) -> None:
        """Claims with other settings than the default ones; before any is taken."""
        self._claims = claims

    def receipt(self, shard: ShardId) -> Receipt | None:
        """The receipt of a shard that is done, whoever wrote it; see pending."""
        return self._finished.valid(shard)

    def open_shard(self, shard: ShardId) -> ShardWriter:
        """A writer of one shard. Raises OSError if the disk failed or is full."""
        return ShardWriter(self._files, self._root, self._plan, shard, self._finished)

    def set_batch_rows(self, batch_rows: Sequence[int]) -> None:
        """Restarts the store with another batch size, as long as no shard is finished.

        The folder is moved aside first: no writer can finish a shard in it any more, and other writers of the
        old plan find another one or none. (A plan replaced in place could be replaced after another writer's
        manifest.)

        Raises PlanError if a shard is finished, since rows of other batches could differ in the last bits, if
        another writer works on one, or if another has restarted the store with other batches.
        """
        bins = tuple(replace(b, batch_rows=rows) for b, rows in zip(self._plan.bins, batch_rows, strict=True))
        if isinstance(self._root, StoreUrl):
            raise PlanError(
                f"{self._root}: a store in object storage cannot be begun again with other batches; "
                "delete it and pass a smaller --batch-size"
            )
        self._refuse_receipts(self._root)
        self._refuse_claims(self._claims.others())
        aside = self._root.with_name(f"{self._root.name}.{uuid.uuid4().hex}.discarded")
        self._files.rename(self._root, aside)
        try:
            self._refuse_receipts(aside)
            self._refuse_claims(Claims(aside, token=self._claims.token).others())
        except PlanError:
            self._files.rename(aside, self._root)
            raise
        self._files.remove_tree(aside)
        restarted = StoreWriter.open_or_create(
            self._root.parent, replace(self._plan, bins=bins), files=self._files
        )
        self._plan, self._finished = restarted._plan, restarted._finished
        if self._plan.bins != bins:
            raise PlanError(f"{self._root}: another writer has planned other batches; run it again")

    def _refuse_receipts(self, root: Path) -> None:
        finished = FinishedShards(self._files, root, self._plan)
        if any(finished.latest(shard)[0] >= 0 for shard in self._plan.shards()):
            raise PlanError(f"{self._root}: some shards are finished, so the batch size can no longer change")

    def _refuse_claims(self, others: Mapping[str, Holder | None]) -> None:
        if others:
            who = sorted({holder.describe() if holder else "another process" for holder in others.values()})
            raise PlanError(
                f"{self._root}: {', '.join(who)} works on shards with the present batch size "
                f"({', '.join(sorted(others)[:5])}), so it cannot change; wait for it to end"
            )

    def finish(self) -> str:
        """Commits the store; returns the sha256 of its manifest. May be repeated.

        Raises:
            IncompleteStore: a shard has no valid receipt.
            PlanError: another writer has restarted it with other batches.
            OSError: the disk failed; run it again.
        """
        if self.complete:
            sync_folders(self._files, [self._root])  # its writer may have been killed first
            if PACKED in self._plan.features:
                data = read_whole(self._files, self._root / MANIFEST_NAME, MAX_MANIFEST_BYTES)
                manifest = decode_manifest(data, f"{self._root}/{MANIFEST_NAME}")
                remove_spooled(self._files, self._root, self._plan, manifest)
        else:
            self._claims.take(COMMIT)  # for `gc`; two at once write the same bytes
            try:
                commit_store(self._files, self._root, self._plan, self._finished)
            finally:
                self._claims.release(COMMIT)
        remove_work_of(self._files, self._root)
        if not isinstance(self._root, StoreUrl):
            remove_other_states(self._root, self._plan)
        return sha256_hex(read_whole(self._files, self._root / MANIFEST_NAME, MAX_MANIFEST_BYTES))

    def _fill_in(self) -> None:
        """Writes those planned tables and metadata files that are missing or differ."""
        make_folders(self._files, self._root, "receipts")
        wanted = {**encode_tables(self._plan), **metadata_bytes(self._plan)}
        missing = {path: data for path, data in wanted.items() if not self._holds(path, data)}
        if missing:
            replace_files(self._files, self._root, missing, uuid.uuid4().hex)

    def _holds(self, path: str, data: bytes) -> bool:
        try:
            return read_whole(self._files, self._root / path, len(data)) == data
        except (FileNotFoundError, StoreError):  # StoreError: longer than expected
            return False


def _read_if_there(files: Files, path: Path, limit_bytes: int) -> bytes | None:
    try:
        return read_whole(files, path, limit_bytes)
    except FileNotFoundError:
        return None


def _create(files: Files, root: Path, plan: StorePlan, needed_bytes: int) -> bytes:
    """Writes plan.json, the first file of a store; returns its content, perhaps another writer's."""
    data = encode_plan(plan)
    if not isinstance(root, StoreUrl):
        _make_root(files, root.absolute(), needed_bytes)
    state = encode_state(plan)
    replace_files(files, root, state, uuid.uuid4().hex)  # before the plan, which binds it
    won = write_exclusive(files, root / PLAN_NAME, data, uuid.uuid4().hex)
    there = read_whole(files, root / PLAN_NAME, MAX_PLAN_BYTES)
    if state and not won and _state_digest(there) != _state_digest(data):
        files.remove_tree(root / "/".join(next(iter(state)).split("/")[:2]))
    return there


def _make_root(files: Files, root: Path, needed_bytes: int) -> None:
    missing = [folder for folder in reversed([root, *root.parents]) if not folder.is_dir()]
    free = files.free_bytes(missing[0].parent if missing else root)
    if free < needed_bytes:
        raise SpaceError(str(root), needed_bytes, free)
    for folder in missing:
        files.make_folder(folder)
        sync_folders(files, [folder.parent])


def _state_digest(data: bytes) -> object:
    fields = parse_canonical(data, PLAN_NAME, FIX_PLAN).get("codec_state")
    return fields.get("sha256") if isinstance(fields, dict) else None


def _read_state_table(files: Files, root: Path, spec: ArraySpec) -> bytes:
    try:
        data = read_whole(files, root / spec.chunk_file(), spec.total_bytes)
    except (FileNotFoundError, StoreError):
        data = b""
    if len(data) != spec.total_bytes:
        raise IntegrityError(f"{root}: {spec.chunk_file()} is missing or has another length; {FIX_PLAN}")
    return data


def _settle(plan: StorePlan, data: bytes, what: str, read_table: Callable[[ArraySpec], bytes]) -> StorePlan:
    """The plan with the geometry of the plan.json in `data`; raises if anything else differs."""
    theirs = parse_canonical(data, f"{what}/{PLAN_NAME}", FIX_PLAN)
    check_format(theirs, what)
    check_features(theirs, what)
    ours = normalized(plan_content(plan))
    if not isinstance(theirs.get("identity"), dict) or not isinstance(theirs.get("bins"), list):
        raise IntegrityError(f"{what}/{PLAN_NAME} is damaged: it has no identity or bins; {FIX_PLAN}")
    for field, expected, found in diff_identity(ours["identity"], theirs["identity"]):
        raise IdentityError(field, expected, found, f"{what} holds another extraction")
    for field, expected, found in diff_identity(_without_adopted(ours), _without_adopted(theirs)):
        raise PlanError(
            f"{what} has the same identity but another plan: {field}: expected {str(expected)[:200]}, "
            f"found {str(found)[:200]}"
        )
    settled = replace(
        plan,
        bins=tuple(Bin(**fields) for fields in theirs["bins"]),
        required_features=tuple(name for name in theirs["required_features"] if name in KNOWN_REQUIRED),
        optional_features=tuple(theirs["optional_features"]),
        own_shards=tuple(theirs.get("own_shards", ())),
        codec_state=decode_state(theirs, read_table, what),
        data_licence=theirs.get("data_licence"),
        weights_licence=theirs.get("weights_licence"),
        backbone_costs=theirs.get("backbone_costs"),
    )
    if settled.bins != plan.bins:
        logger.info("%s: continuing with the shard and batch rows of its plan", what)
    if settled.features - {FITTED_CODEC} != plan.features - {FITTED_CODEC}:
        logger.info("%s: continuing in the layout that it was begun with", what)
    return settled


def _without_adopted(content: dict[str, Any]) -> dict[str, Any]:
    bins = [{name: value for name, value in b.items() if name not in _ADOPTED} for b in content["bins"]]
    rest = {name: value for name, value in content.items() if name not in _OF_LAYOUT}
    features = {
        kind: [name for name in content[kind] if name not in LAYOUT]
        for kind in ("required_features", "optional_features")
    }
    return {**rest, "bins": bins, **features}
