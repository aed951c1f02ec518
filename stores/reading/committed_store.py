"""The small files of a committed store: read within bounds, compared with the manifest's digests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.errors import (
    FIX_DERIVED,
    FIX_PLAN,
    DerivedFileError,
    FormatError,
    IncompleteStore,
    IntegrityError,
    NoSuchStore,
)
from stores.format.array_spec import ArraySpec
from stores.format.arrays import outcome_tables
from stores.format.bounded_files import StoreFolder
from stores.format.canonical_json import sha256_hex
from stores.format.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, PLAN_NAME, Manifest, decode_manifest
from stores.format.plan import MAX_PLAN_BYTES, StorePlan
from stores.format.plan_file import decode_plan
from stores.format.row_table import UNKNOWN, WRITTEN
from stores.reading.metadata_check import metadata_problems
from stores.remote.opening import open_folder

MAX_TABLE_BYTES = 1 << 30  # 1 GiB


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CommittedStore:
    """Plan, manifest and outcomes of a committed store."""

    folder: StoreFolder
    manifest: Manifest
    manifest_digest: str
    """sha256 of MANIFEST.json; if it equals a digest from a trusted source, the store is authentic."""
    plan: StorePlan
    outcome: npt.NDArray[np.uint8]
    """(rows,) codes of stores.format.row_table in plan order."""

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.folder.path)

    def table(self, spec: ArraySpec) -> npt.NDArray[Any]:
        """A table of the store. Raises IntegrityError if its sha256 is not the manifest's."""
        data = read_table(self.folder, spec)
        expected = self.manifest.files.get(spec.chunk_file())
        if sha256_hex(data) != expected:
            raise DerivedFileError(
                f"{self.name}: table {spec.path} was changed: its sha256 is not the manifest's; {FIX_DERIVED}"
            )
        return np.frombuffer(data, dtype=spec.dtype).reshape(spec.shape)


def read_table(folder: StoreFolder, spec: ArraySpec) -> bytes:
    """The bytes of a table. Raises IntegrityError if the file's length is not the plan's."""
    if spec.total_bytes > MAX_TABLE_BYTES:
        raise FormatError(
            f"{folder.path}: table {spec.path} has {spec.total_bytes} bytes, at most {MAX_TABLE_BYTES}"
        )
    try:
        return folder.read_exactly(spec.chunk_file(), spec.total_bytes)
    except IntegrityError as error:
        raise DerivedFileError(f"{error}; {FIX_DERIVED}") from None


def read_manifest(folder: StoreFolder) -> tuple[Manifest, str]:
    """The manifest and its sha256.

    Raises:
        NoSuchStore: the folder holds no plan either.
        IncompleteStore: a plan, but no manifest yet.
        IntegrityError: not a manifest of this format.
    """
    if not folder.has(MANIFEST_NAME):
        if folder.has(PLAN_NAME):
            raise IncompleteStore(
                f"{folder.path}: no {MANIFEST_NAME}, so its extraction has not finished; run extract again"
            )
        raise NoSuchStore(f"{folder.path}: neither {MANIFEST_NAME} nor {PLAN_NAME}: this is not a store")
    data = folder.read(MANIFEST_NAME, limit_bytes=MAX_MANIFEST_BYTES)
    return decode_manifest(data, f"{folder.path}/{MANIFEST_NAME}"), sha256_hex(data)


def read_plan(folder: StoreFolder, expected_sha256: str | None) -> StorePlan:
    """The plan and its row tables. Raises IntegrityError if plan.json has another digest than expected."""
    try:
        data = folder.read(PLAN_NAME, limit_bytes=MAX_PLAN_BYTES)
    except IntegrityError as error:
        raise IntegrityError(f"{error}; {FIX_PLAN}") from None
    if expected_sha256 is not None and sha256_hex(data) != expected_sha256:
        raise IntegrityError(
            f"{folder.path}: {PLAN_NAME} was changed: its sha256 is not the manifest's; {FIX_PLAN}"
        )
    return decode_plan(data, lambda spec: read_table(folder, spec), f"{folder.path}/{PLAN_NAME}")


def read_committed_plan(folder: StoreFolder, manifest: Manifest) -> StorePlan:
    """The plan that the manifest binds. Raises IntegrityError for another one."""
    plan = read_plan(folder, manifest.files.get(PLAN_NAME, ""))
    if plan.identity_digest != manifest.identity_sha256:
        raise IntegrityError(
            f"{folder.path}: the manifest is of the identity {manifest.identity_sha256[:64]}, {PLAN_NAME} of "
            f"{plan.identity_digest}; {FIX_PLAN}"
        )
    return plan


def read_committed(path: str | Path) -> CommittedStore:
    """Opens a committed store. Raises NoSuchStore, IncompleteStore, IntegrityError or FormatError."""
    folder = open_folder(path)
    manifest, digest = read_manifest(folder)
    folder.use_cache(digest)
    plan = read_committed_plan(folder, manifest)
    spec = outcome_tables(plan)["outcome"]
    empty = np.empty(0, dtype=np.uint8)
    bare = CommittedStore(folder=folder, manifest=manifest, manifest_digest=digest, plan=plan, outcome=empty)
    outcome = bare.table(spec)
    skipped = {s.row: s.code for s in manifest.skipped}
    found = {int(row): int(outcome[row]) for row in np.flatnonzero(outcome != WRITTEN)}
    if skipped != found or UNKNOWN in found.values():
        raise IntegrityError(f"{path}: the manifest's list of skipped rows is not that of rows/outcome")
    for problem in metadata_problems(folder, plan, manifest.files):
        if problem.is_bound:
            raise IntegrityError(f"{problem.what}; {FIX_PLAN}")
        raise DerivedFileError(f"{problem.what}; {FIX_DERIVED}")
    return CommittedStore(
        folder=folder, manifest=manifest, manifest_digest=digest, plan=plan, outcome=outcome
    )
