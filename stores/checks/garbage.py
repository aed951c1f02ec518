"""Files that killed writers left in a store: partial files without a receipt; after the commit `work/`, and
single receipts where they were packed.

Of a store that is being written nothing is listed that a living process may still need: see
`stores.work.claims.live_claims`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stores.checks.status import plan_of_unfinished
from stores.format.bounded_files import StoreFolder
from stores.format.manifest import MANIFEST_NAME, PLAN_NAME
from stores.format.plan import ShardId, StorePlan
from stores.shards.disk import Files, remove_if_there
from stores.shards.finished import FinishedShards
from stores.shards.receipt_pack import PACK_PATH
from stores.shards.spool import spool_path
from stores.work.claims import live_claims
from stores.work.folder import WORK, remove_work
from stores.work.holder import Holder

PARTIAL_SUFFIX = ".partial"
RECEIPTS = "receipts"


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphan:
    """A file that a killed writer left and nothing needs."""

    path: Path
    bytes: int


def gc_orphans(path: str | Path, delete: bool = False) -> list[Orphan]:
    """The files in a store that nothing needs; deleted with `delete`.

    Files of a running extraction are not among them: it holds claims. (One of a release before claims did
    not: wait for such a one to end.)

    Raises NoSuchStore if `path` is not a folder.
    """
    root = StoreFolder(Path(path)).path
    # Files first, then claims, then receipts, the order in which a writer makes them: what is listed here has
    # a claim, a receipt, or its final name by the time those are read.
    candidates = list(_candidates(root))
    needed = _Needed(root)
    found = [orphan for orphan in candidates if needed.is_orphan(orphan.path)]
    if delete:
        for orphan in found:
            remove_if_there(Files(), orphan.path)
        if needed.is_committed:
            remove_work(root)
    return sorted(found, key=lambda orphan: orphan.path)


def _candidates(root: Path) -> Iterator[Orphan]:
    """Partial files, receipts and files in `work/`, with their sizes; one that vanishes meanwhile is left
    out."""
    for folder, _, names in os.walk(root):
        is_listed = Path(folder).relative_to(root).parts[:1] in ((WORK,), (RECEIPTS,))
        for name in sorted(names):
            if not is_listed and not name.endswith(PARTIAL_SUFFIX):
                continue
            file = Path(folder, name)
            try:
                yield Orphan(path=file, bytes=file.lstat().st_size)
            except FileNotFoundError:
                continue


class _Needed:
    """What may still be needed in a store, as it was when this was made."""

    def __init__(self, root: Path) -> None:
        self._root = root
        folder = StoreFolder(root)
        claims = live_claims(root)
        self.is_committed = folder.has(MANIFEST_NAME)
        plan = None if self.is_committed or not folder.has(PLAN_NAME) else plan_of_unfinished(folder)
        self._of_receipts = set() if plan is None else _partials_of_receipts(root, plan)
        self._is_packed = self.is_committed and (root / PACK_PATH).exists()
        self._is_being_written = bool(claims) and not self.is_committed
        self._unclaimed = set() if plan is None else _files_of_unclaimed(plan, claims)

    def is_orphan(self, file: Path) -> bool:
        relative = file.relative_to(self._root)
        if self.is_committed and relative.parts[0] == WORK:
            return True
        if self._is_packed and relative.parts[0] == RECEIPTS and relative.as_posix() != PACK_PATH:
            return file.name.endswith((".json", PARTIAL_SUFFIX))
        if not file.name.endswith(PARTIAL_SUFFIX) or file in self._of_receipts:
            return False
        final = relative.as_posix().removesuffix(PARTIAL_SUFFIX).rpartition(".")[0]
        return not self._is_being_written or final in self._unclaimed


def _partials_of_receipts(root: Path, plan: StorePlan) -> set[Path]:
    """Partial files of finished shards that are not renamed yet."""
    finished = FinishedShards(Files(), root, plan)
    receipts = [finished.latest(shard)[1] for shard in plan.shards()]
    return {path for receipt in receipts if receipt for path in finished.partials(receipt)}


def _files_of_unclaimed(plan: StorePlan, claims: Mapping[str, Holder | None]) -> set[str]:
    """Final names of the files of shards that no living process works on, by path from the root."""
    finished = FinishedShards(Files(), Path(), plan)
    unclaimed: list[ShardId] = [shard for shard in plan.shards() if plan.shard_name(shard) not in claims]
    spools = {spool_path(plan.shard_name(shard)) for shard in unclaimed}
    return spools | {path for shard in unclaimed for path in finished.paths(shard)}
