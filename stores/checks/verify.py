"""verify_store: compares the files of a store with its plan, manifest and receipts.

Quick: every small file, and the length and index of every shard file. Full: every byte, by sha256 and
chunk by chunk, so that a store without a problem can be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stores.checks.garbage import PARTIAL_SUFFIX, Orphan, gc_orphans
from stores.checks.packed_check import check_packed_shards, packed_paths
from stores.checks.problems import Problem, Repair, Report
from stores.checks.receipt_differences import contradicting_shards
from stores.checks.status import Status, store_status
from stores.errors import FIX_MANIFEST, DerivedFileError, IncompleteStore, IntegrityError
from stores.format.array_spec import ArraySpec
from stores.format.arrays import all_arrays, metadata_files, own_arrays
from stores.format.bounded_files import StoreFolder
from stores.format.canonical_json import sha256_hex
from stores.format.features import CHUNK_DIGESTS, PACKED
from stores.format.manifest import MANIFEST_NAME, PLAN_NAME, Manifest
from stores.format.plan import ShardId, StorePlan
from stores.format.row_table import WRITTEN
from stores.reading.committed_store import read_committed_plan, read_manifest, read_plan
from stores.reading.metadata_check import MAX_METADATA_BYTES, metadata_problems
from stores.remote.opening import files_of, open_folder
from stores.shards.disk import partial_of
from stores.shards.finished import FinishedShards
from stores.shards.receipt_pack import PACK_PATH, lines_of
from stores.shards.receipt_tables import ReceiptTables
from stores.shards.receipts import MAX_RECEIPT_BYTES, Receipt, decode_receipt, receipt_path
from stores.shards.shard_check import check_shard_file, wrong_lengths
from stores.shards.written_digest import Hash, hash_of
from stores.work.folder import is_beside

__all__ = ["Orphan", "Problem", "Repair", "Report", "Status", "gc_orphans", "store_status", "verify_store"]

_THREADS = 4
MAX_PACK_BYTES = 1 << 31  # 2 GiB: the receipts of millions of rows


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
    check = _Check(open_folder(path), full)
    check.store(manifest_digest)
    return Report(problems=tuple(check.problems), bytes_read=check.bytes_read)


class _Check:
    """One verification: collects problems and counts bytes."""

    def __init__(self, folder: StoreFolder, full: bool) -> None:
        self._folder, self._full = folder, full
        self._may_be_unnamed = False
        """Whether a writer may have left shard files under partial names."""
        self.problems: list[Problem] = []
        self.bytes_read = 0

    def _add(self, what: str, repair: Repair) -> None:
        """A problem of the whole store."""
        store = str(self._folder.path)
        self.problems.append(Problem(store=store, shard=None, rows=(), what=what, repair=repair))

    def _add_shard(self, what: str, plan: StorePlan, shard: ShardId) -> None:
        local = plan.shard_rows(shard)
        self.problems.append(
            Problem(
                store=str(self._folder.path),
                shard=plan.shard_name(shard),
                rows=tuple(plan.bin_rows[shard.bin][local.start : local.stop].tolist()),
                what=what,
                repair=Repair.SHARD,
            )
        )

    def store(self, manifest_digest: str | None) -> None:
        try:
            manifest, digest = read_manifest(self._folder)
        except IncompleteStore as error:
            self._add(str(error), Repair.RESUME)
            self._unfinished()
            return
        except IntegrityError as error:
            is_derived = str(error).endswith(FIX_MANIFEST)
            self._add(str(error), Repair.COMMIT if is_derived else Repair.NONE)
            if is_derived:
                self._unfinished()
            return
        if manifest_digest is not None and manifest_digest != digest:
            self._add(f"{MANIFEST_NAME} has sha256 {digest}, expected {manifest_digest}", Repair.NONE)
        try:
            plan = read_committed_plan(self._folder, manifest)
        except IntegrityError as error:
            self._add(str(error), Repair.COMMIT if isinstance(error, DerivedFileError) else Repair.NONE)
        else:
            self._committed(plan, manifest)

    def _committed(self, plan: StorePlan, manifest: Manifest) -> None:
        self._metadata(plan, manifest.files)
        bound = self._bound_tables(plan, manifest.files)
        tables = ReceiptTables(plan)
        receipts = list(self._receipts(plan, manifest, tables))
        self._shards(plan, receipts)
        self._packed(plan, manifest, receipts)
        if tables.content_digest != manifest.content_digest and len(receipts) == len(plan.shards()):
            self._add("the content digest is not that of the receipts", Repair.COMMIT)
        self._receipts_as_bound(plan, manifest, tables, receipts, bound)
        self._unlisted(plan, {*manifest.files, MANIFEST_NAME})

    def _receipts_as_bound(
        self,
        plan: StorePlan,
        manifest: Manifest,
        tables: ReceiptTables,
        receipts: Sequence[Receipt],
        bound: Mapping[str, bytes],
    ) -> None:
        contradicting = contradicting_shards(plan, manifest, tables, bound)
        for shard in [receipt.shard for receipt in receipts if receipt.shard in contradicting]:
            path = receipt_path(plan, shard, manifest.generations.get(shard, 0))
            self._add_shard(f"{path} contradicts the tables or the skipped rows of the manifest", plan, shard)
        if len(receipts) == len(plan.shards()) and tables.receipts_sha256 != manifest.receipts_sha256:
            # One digest binds all receipts. With --full all that they say of data was compared one by one.
            is_located = self._full and any(p.repair is Repair.SHARD for p in self.problems)
            what = "the receipts were changed: their digest is not the manifest's"
            self._add(what, Repair.COMMIT if is_located else Repair.NONE)

    def _packed(self, plan: StorePlan, manifest: Manifest, receipts: Sequence[Receipt]) -> None:
        by_unit, damaged = {receipt.shard: receipt for receipt in receipts}, set[ShardId]()
        for result in check_packed_shards(self._folder, plan, manifest, by_unit, full=self._full):
            self.bytes_read += result.bytes_read
            for unit in set(result.units) - damaged:
                self._add_shard(str(result.problem), plan, unit)
            damaged |= set(result.units)
            if result.problem is not None and not result.units:
                self._add(result.problem, Repair.COMMIT)

    def _unfinished(self) -> None:
        """The existing receipts and their shards."""
        self._may_be_unnamed = True
        try:
            plan = read_plan(self._folder, None)
        except IntegrityError as error:
            # Without its tables a store was barely begun, and its extraction writes them.
            self._add(str(error), Repair.RESUME if isinstance(error, DerivedFileError) else Repair.NONE)
            return
        finished = FinishedShards(files_of(self._folder.path), self._folder.path, plan)
        receipts = []
        for shard in plan.shards():
            generation, receipt = finished.latest(shard)
            if receipt is not None and receipt.plan_sha256 == finished.plan_sha256:
                receipts.append(receipt)
            elif generation >= 0:
                path = receipt_path(plan, shard, generation)
                what = "is damaged" if receipt is None else "belongs to another plan"
                self._add_shard(f"{path} {what}", plan, shard)
        self._shards(plan, receipts)
        for receipt in receipts:
            spool = finished.unit_rows.damage(receipt, full=self._full)
            if spool is not None and not self._has_partial_spool(finished, receipt):
                self._add_shard(spool, plan, receipt.shard)

    def _has_partial_spool(self, finished: FinishedShards, receipt: Receipt) -> bool:
        """Whether the spool of a finished unit still has the name that its writer gave it."""
        partial_spool = finished.partials(receipt)[-1].relative_to(self._folder.path)
        return receipt.spool is not None and self._folder.has(partial_spool.as_posix())

    def _metadata(self, plan: StorePlan, bound: Mapping[str, str]) -> None:
        for problem in metadata_problems(self._folder, plan, bound):
            self._add(problem.what, Repair.NONE if problem.is_bound else Repair.COMMIT)

    def _bound_tables(self, plan: StorePlan, bound: Mapping[str, str]) -> dict[str, bytes]:
        """The tables by path, without those that are damaged."""
        lengths = {
            spec.chunk_file(): spec.total_bytes for spec in all_arrays(plan) if spec.shard_rows is None
        }
        for path in sorted({*lengths, PLAN_NAME} - bound.keys()):
            self._add(f"{path} is not in the manifest", Repair.COMMIT)
        of_metadata, sound = metadata_files(plan), dict[str, bytes]()
        for path, expected in bound.items():
            if path == PACK_PATH:  # compared receipt by receipt
                continue
            try:
                data = self._folder.read(path, limit_bytes=lengths.get(path, MAX_METADATA_BYTES))
            except IntegrityError as error:
                if path not in of_metadata:
                    self._add(str(error), Repair.COMMIT)
                continue
            self.bytes_read += len(data)
            if sha256_hex(data) == expected:
                if len(data) == lengths.get(path):
                    sound[path] = data
            elif path not in of_metadata:
                self._add(f"{path} was changed: its sha256 is not the manifest's", Repair.COMMIT)
        return sound

    def _receipts(self, plan: StorePlan, manifest: Manifest, tables: ReceiptTables) -> Iterator[Receipt]:
        lines = self._packed_receipts(manifest) if PACKED in plan.features else None
        for shard in plan.shards():
            generation = manifest.generations.get(shard, 0)
            paths = {spec.chunk_file(shard.shard) for spec in own_arrays(plan, shard.bin).values()}
            try:
                path = receipt_path(plan, shard, generation)
                data = self._receipt(path, lines, shard)
                receipt = decode_receipt(data, plan, shard, generation, paths)
            except IntegrityError as error:
                self._add_shard(str(error), plan, shard)
                continue
            self.bytes_read += len(data)
            tables.take(receipt)
            if receipt.plan_sha256 != manifest.files.get(PLAN_NAME):
                self._add_shard(f"{path} belongs to another plan", plan, shard)
            yield receipt

    def _receipt(self, path: str, lines: Mapping[ShardId, bytes] | None, shard: ShardId) -> bytes:
        if lines is None:
            return self._folder.read(path, limit_bytes=MAX_RECEIPT_BYTES)
        if shard not in lines:
            raise IntegrityError(f"{PACK_PATH} holds no receipt {path}")
        return lines[shard]

    def _packed_receipts(self, manifest: Manifest) -> dict[ShardId, bytes]:
        """The lines of the file of all receipts; none where it is missing."""
        try:
            data = self._folder.read(PACK_PATH, limit_bytes=MAX_PACK_BYTES)
        except IntegrityError:
            return {}
        if sha256_hex(data) != manifest.files.get(PACK_PATH):
            self._add(f"{PACK_PATH} was changed: its sha256 is not the manifest's", Repair.COMMIT)
        return lines_of(data)

    def _shards(self, plan: StorePlan, receipts: Sequence[Receipt]) -> None:
        """Shard files, several at once: hashing releases the GIL."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="store-verify") as pool:
            found = pool.map(lambda receipt: list(self._shard(plan, receipt)), receipts)
            for receipt, results in zip(receipts, found, strict=True):
                for bytes_read, what in results:
                    self.bytes_read += bytes_read
                    if what is not None:
                        self._add_shard(what, plan, receipt.shard)

    def _shard(self, plan: StorePlan, receipt: Receipt) -> Iterator[tuple[int, str | None]]:
        """Bytes read and what is wrong, for each file of a shard."""
        written = np.array(receipt.outcome) == WRITTEN
        chunk_hash = hash_of(plan.features) if CHUNK_DIGESTS in plan.features else None
        for spec in own_arrays(plan, receipt.shard.bin).values():
            path = spec.chunk_file(receipt.shard.shard)
            try:
                yield self._shard_file(spec, path, receipt, written, chunk_hash), None
            except IntegrityError as error:
                yield 0, str(error)
        if self._full:
            for what in wrong_lengths(plan, receipt):
                yield 0, f"{self._folder.path}: {what}"

    def _shard_file(
        self,
        spec: ArraySpec,
        path: str,
        receipt: Receipt,
        written: npt.NDArray[np.bool_],
        chunk_hash: Hash | None,
    ) -> int:
        """Bytes read. A file that a killed writer has not renamed yet counts under its partial name."""
        own = partial_of(Path(path), receipt.writer).as_posix()
        figures = receipt.files[path]
        check = partial(check_shard_file, self._folder, spec, full=self._full, chunk_hash=chunk_hash)
        if self._may_be_unnamed and self._folder.has(own):
            try:
                return check(own, figures, written)
            except IntegrityError:  # unless it was renamed just now
                if self._folder.has(own):
                    raise
        return check(path, figures, written)

    def _unlisted(self, plan: StorePlan, bound: set[str]) -> None:
        """Files in the folder that are not part of the store; partial files are reported by `gc`."""
        known = bound | packed_paths(plan)
        for shard in plan.shards():
            known |= {spec.chunk_file(shard.shard) for spec in own_arrays(plan, shard.bin).values()}
        receipts = {f"receipts/{plan.shard_name(shard)}" for shard in plan.shards()}
        for path in self._folder.files():
            is_receipt = path.endswith(".json") and path.split(".")[0] in receipts
            is_left = path.endswith(PARTIAL_SUFFIX) or is_beside(path)
            if path not in known and not is_receipt and not is_left:
                self._add(f"{path} is not part of the store", Repair.FOREIGN)
