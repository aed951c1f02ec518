"""verify_store: compares the files of a store with its manifest and receipts.

Quick: every small file, and the length and index of every shard file. Full: every byte, by sha256.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stores.checks.status import PARTIAL_SUFFIX, Orphan, Status, gc_orphans, store_status
from stores.errors import IncompleteStore, IntegrityError
from stores.format.arrays import all_arrays, metadata_files, sharded_arrays
from stores.format.bounded_files import StoreFolder
from stores.format.canonical_json import sha256_hex
from stores.format.manifest import MANIFEST_NAME, PLAN_NAME
from stores.format.plan import ShardId, StorePlan
from stores.reading.committed_store import CommittedStore, read_committed, read_plan
from stores.shards.disk import Files
from stores.shards.finished import FinishedShards
from stores.shards.receipt_tables import ReceiptTables
from stores.shards.receipts import MAX_RECEIPT_BYTES, Receipt, decode_receipt, receipt_path
from stores.shards.shard_check import check_shard_file

__all__ = ["Orphan", "Problem", "Report", "Status", "gc_orphans", "store_status", "verify_store"]

_MAX_JSON_BYTES = 16 << 20  # 16 MiB: no zarr.json comes near it
_THREADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One difference from what was written."""

    store: str
    shard: str | None
    """The bin and number, such as "512x512-3"; None if it concerns the whole store."""
    rows: tuple[int, ...]
    """Plan rows that cannot be trusted; empty if no row's data are affected."""
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What verify_store found."""

    problems: tuple[Problem, ...]
    bytes_read: int

    @property
    def ok(self) -> bool:
        return not self.problems


def verify_store(path: str | Path, *, full: bool = False, manifest_digest: str | None = None) -> Report:
    """Compares a store with its manifest, an unfinished one with its receipts.

    Args:
        path: the store's folder.
        full: reads every byte of every shard.
        manifest_digest: 64 hex digits from a trusted source: if they match, the store is authentic.

    Raises:
        NoSuchStore: no store at this path.
        OSError: the disk failed, which says nothing about the store.
    """
    check = _Check(StoreFolder(Path(path)), full)
    try:
        store = read_committed(Path(path))
    except IncompleteStore as error:
        check.add(str(error))
        check.unfinished()
    except IntegrityError as error:
        check.add(str(error))
    else:
        if manifest_digest is not None and manifest_digest != store.manifest_digest:
            check.add(f"{MANIFEST_NAME} has sha256 {store.manifest_digest}, expected {manifest_digest}")
        check.committed(store)
    return Report(problems=tuple(check.problems), bytes_read=check.bytes_read)


class _Check:
    """One verification: collects problems and counts bytes."""

    def __init__(self, folder: StoreFolder, full: bool) -> None:
        self._folder, self._full = folder, full
        self.problems: list[Problem] = []
        self.bytes_read = 0

    def add(self, what: str, plan: StorePlan | None = None, shard: ShardId | None = None) -> None:
        rows: tuple[int, ...] = ()
        if plan is not None and shard is not None:
            local = plan.shard_rows(shard)
            rows = tuple(plan.bin_rows[shard.bin][local.start : local.stop].tolist())
        name = plan.shard_name(shard) if plan is not None and shard is not None else None
        self.problems.append(Problem(store=str(self._folder.path), shard=name, rows=rows, what=what))

    def committed(self, store: CommittedStore) -> None:
        plan, manifest = store.plan, store.manifest
        self._bound_files(plan, manifest.files)
        tables = ReceiptTables(plan)
        receipts = list(self._receipts(plan, manifest.generations, tables))
        if len(receipts) == len(plan.shards()):
            if tables.receipts_sha256 != manifest.receipts_sha256:
                self.add("the receipts were changed: their digest is not the manifest's")
            if tables.skipped != manifest.skipped:
                self.add("the manifest's list of skipped rows differs from the receipts'")
            for path, data in tables.chunks().items():
                if sha256_hex(data) != manifest.files.get(path):
                    self.add(f"table {path} differs from the receipts")
        self._shards(plan, receipts)
        self._unlisted(plan, {*manifest.files, MANIFEST_NAME})

    def unfinished(self) -> None:
        """The existing receipts and their shards."""
        try:
            plan = read_plan(self._folder, None)
        except IntegrityError as error:
            self.add(str(error))
            return
        finished = FinishedShards(Files(), self._folder.path, plan)
        receipts = []
        for shard in plan.shards():
            generation, receipt = finished.latest(shard)
            if receipt is not None:
                receipts.append(receipt)
            elif generation >= 0:
                self.add(f"{receipt_path(plan, shard, generation)} is damaged", plan, shard)
        self._shards(plan, receipts)

    def _bound_files(self, plan: StorePlan, bound: Mapping[str, str]) -> None:
        lengths = {
            spec.chunk_file(): spec.total_bytes for spec in all_arrays(plan) if spec.shard_rows is None
        }
        for path in sorted({*metadata_files(plan), *lengths, PLAN_NAME} - bound.keys()):
            self.add(f"{path} is not in the manifest")
        for path, expected in bound.items():
            try:
                data = self._folder.read(path, limit_bytes=lengths.get(path, _MAX_JSON_BYTES))
            except IntegrityError as error:
                self.add(str(error))
                continue
            self.bytes_read += len(data)
            if sha256_hex(data) != expected:
                self.add(f"{path} was changed: its sha256 is not the manifest's")

    def _receipts(
        self, plan: StorePlan, generations: Mapping[ShardId, int], tables: ReceiptTables
    ) -> Iterator[Receipt]:
        for shard in plan.shards():
            generation = generations.get(shard, 0)
            paths = {spec.chunk_file(shard.shard) for spec in sharded_arrays(plan, shard.bin).values()}
            try:
                path = receipt_path(plan, shard, generation)
                data = self._folder.read(path, limit_bytes=MAX_RECEIPT_BYTES)
                receipt = decode_receipt(data, plan, shard, generation, paths)
            except IntegrityError as error:
                self.add(str(error), plan, shard)
                continue
            self.bytes_read += len(data)
            tables.take(receipt)
            yield receipt

    def _shards(self, plan: StorePlan, receipts: Sequence[Receipt]) -> None:
        """Shard files, several at once: hashing releases the GIL."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="store-verify") as pool:
            found = pool.map(lambda receipt: list(self._shard(plan, receipt)), receipts)
            for receipt, results in zip(receipts, found, strict=True):
                for bytes_read, what in results:
                    self.bytes_read += bytes_read
                    if what is not None:
                        self.add(what, plan, receipt.shard)

    def _shard(self, plan: StorePlan, receipt: Receipt) -> Iterator[tuple[int, str | None]]:
        """Bytes read and what is wrong, for each file of a shard."""
        for spec in sharded_arrays(plan, receipt.shard.bin).values():
            path = spec.chunk_file(receipt.shard.shard)
            try:
                yield check_shard_file(self._folder, spec, path, receipt.files[path], full=self._full), None
            except IntegrityError as error:
                yield 0, str(error)

    def _unlisted(self, plan: StorePlan, bound: set[str]) -> None:
        """Files in the folder that are not part of the store; partial files are reported by `gc`."""
        known = set(bound)
        for shard in plan.shards():
            known |= {spec.chunk_file(shard.shard) for spec in sharded_arrays(plan, shard.bin).values()}
        receipts = {f"receipts/{plan.shard_name(shard)}" for shard in plan.shards()}
        root = self._folder.path
        for folder, folders, names in os.walk(root):
            links = [name for name in folders if Path(folder, name).is_symlink()]
            for name in sorted([*names, *links]):
                path = Path(folder, name).relative_to(root).as_posix()
                is_receipt = path.endswith(".json") and path.split(".")[0] in receipts
                if path not in known and not is_receipt and not name.endswith(PARTIAL_SUFFIX):
                    self.add(f"{path} is not part of the store")
