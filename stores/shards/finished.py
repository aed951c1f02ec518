"""Finished shards of an unfinished store: finds receipts, completes renames, detects damage."""

from __future__ import annotations

import errno
import hashlib
from functools import partial
from pathlib import Path

from stores.errors import PlanError, StoreError
from stores.format.array_spec import ArraySpec
from stores.format.arrays import own_arrays
from stores.format.canonical_json import sha256_hex
from stores.format.features import CHUNK_DIGESTS, PACKED
from stores.format.manifest import PLAN_NAME
from stores.format.plan import MAX_PLAN_BYTES, ShardId, StorePlan
from stores.format.plan_file import encode_plan
from stores.shards.disk import Files, partial_of, read_whole, sync_folders
from stores.shards.receipt_pack import ReceiptPack, generation_of
from stores.shards.receipts import MAX_GENERATIONS, MAX_RECEIPT_BYTES, Receipt, decode_receipt, receipt_path
from stores.shards.shard_check import digest_of_chunks
from stores.shards.spool import spool_path
from stores.shards.unit_rows import UnitRows
from stores.shards.written_digest import hash_of

_PIECE_BYTES = 1 << 20  # 1 MiB


class FinishedShards:
    """The receipts of a store that is being written. Caches nothing: every call reads the disk."""

    def __init__(self, files: Files, root: Path, plan: StorePlan, plan_sha256: str | None = None) -> None:
        """Args: plan_sha256: of plan.json, where it is known; computing it reads every table."""
        self._files, self._root, self._plan = files, root, plan
        self._plan_sha256 = plan_sha256 or sha256_hex(encode_plan(plan))
        self._specs = [tuple(own_arrays(plan, index).values()) for index in range(len(plan.bins))]
        self._pack = ReceiptPack(files, root) if PACKED in plan.features else None
        self.unit_rows = UnitRows(files, root, plan)

    @property
    def plan_sha256(self) -> str:
        return self._plan_sha256

    def paths(self, shard: ShardId) -> tuple[str, ...]:
        """The shard files of a unit, in the order of the bin's arrays."""
        return tuple(spec.chunk_file(shard.shard) for spec in self._specs[shard.bin])

    def latest(self, shard: ShardId) -> tuple[int, Receipt | None]:
        """The highest generation of receipts, and its receipt; (-1, None) without one.

        The receipt is also None if it is damaged or belongs to another shard. Generations are opened one
        after another, since a listing may be stale on a network file system. One that an earlier commit
        packed counts as if it stood in a file of its own.
        """
        first, found = self.packed(shard)
        for generation in range(first, MAX_GENERATIONS):
            try:
                data = self._read(receipt_path(self._plan, shard, generation))
            except FileNotFoundError:
                packed = self.packed(shard)  # a commit may have packed and deleted what was looked for
                return (generation - 1, found) if packed[0] <= generation else self.latest(shard)
            found = self._decode(data, shard, generation)
        raise StoreError(
            f"{self._root}: shard {shard} has {MAX_GENERATIONS} damaged receipts; check the disk"
        )

    def packed(self, shard: ShardId) -> tuple[int, Receipt | None]:
        """The first generation after that of the packed receipt, and this receipt; (0, None) without one."""
        line = None if self._pack is None else self._pack.line(shard)
        generation = None if line is None else generation_of(line)
        if line is None or generation is None:
            return 0, None
        return generation + 1, self._decode(line, shard, generation)

    def _read(self, path: str) -> bytes | None:
        try:
            return read_whole(self._files, self._root / path, MAX_RECEIPT_BYTES)
        except StoreError:  # larger than any receipt
            return None

    def _decode(self, data: bytes | None, shard: ShardId, generation: int) -> Receipt | None:
        try:
            return decode_receipt(data or b"", self._plan, shard, generation, set(self.paths(shard)))
        except StoreError:
            return None

    def refuse_another_plan(self) -> None:
        """Raises PlanError if another writer has replaced the plan by one with other batches."""
        data = read_whole(self._files, self._root / PLAN_NAME, MAX_PLAN_BYTES)
        if sha256_hex(data) != self._plan_sha256:
            raise PlanError(
                f"{self._root}: another writer has restarted this extraction with other batches; run it again"
            )

    def valid(self, shard: ShardId, *, full: bool = False) -> Receipt | None:
        """The receipt of a shard if its files are in place and undamaged; completes unfinished renames first.

        Damage is detected by missing files and lengths, with `full` by every byte.
        """
        return self._settled(shard, full=full)[1]

    def next_generation(self, shard: ShardId) -> int:
        """The generation of the next receipt: for an undamaged shard that of its present receipt."""
        generation, receipt = self._settled(shard, full=True)
        return generation if receipt else generation + 1

    def _settled(self, shard: ShardId, *, full: bool) -> tuple[int, Receipt | None]:
        """The highest generation, and its receipt if the shard is undamaged.

        Looks for a newer receipt again once the files are checked: another writer may have replaced them
        meanwhile by its own, of the same lengths.
        """
        generation, receipt = self.latest(shard)
        while True:
            if receipt is not None:
                self.finish_renames(receipt)
                if self.damage(receipt, full=full):
                    receipt = None
            newest, newest_receipt = self.latest(shard)
            if newest == generation:
                return generation, receipt
            generation, receipt = newest, newest_receipt

    def finish_renames(self, receipt: Receipt) -> None:
        """Renames the winner's files into place where this is not done yet, whichever writer won."""
        renamed = []
        for path in self._written(receipt):
            final = self._root / path
            try:
                self._files.rename(partial_of(final, receipt.writer), final)
            except FileNotFoundError:  # in place already, or renamed by another writer just now
                continue
            renamed.append(final.parent)
        if renamed:
            sync_folders(self._files, renamed)

    def partials(self, receipt: Receipt) -> tuple[Path, ...]:
        """The partial names under which the winner wrote the shard's files."""
        return tuple(partial_of(self._root / path, receipt.writer) for path in self._written(receipt))

    def _written(self, receipt: Receipt) -> tuple[str, ...]:
        """The files that the winner wrote: its shards and, where there is one, its spool."""
        spool = () if receipt.spool is None else (spool_path(self._plan.shard_name(receipt.shard)),)
        return (*receipt.files, *spool)

    def damage(self, receipt: Receipt, *, full: bool = False) -> str | None:
        """What is wrong with a receipt or its files; None if nothing is."""
        if receipt.plan_sha256 != self._plan_sha256:
            return f"the receipt of {self._plan.shard_name(receipt.shard)} belongs to another plan"
        for spec in self._specs[receipt.shard.bin]:
            path = spec.chunk_file(receipt.shard.shard)
            figures = receipt.files[path]
            try:
                fd = self._files.open(self._root / path)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP):
                    raise
                return f"{path} is missing"
            try:
                size = self._files.size(fd)
                if size != figures.bytes:
                    return f"{path} has {size} bytes, expected {figures.bytes}"
                if full and self._digest(fd, size, spec) != figures.digest:
                    return f"{path} was changed: its digest is not the receipt's"
            finally:
                self._files.close(fd)
        return self.unit_rows.damage(receipt, full=full)

    def _digest(self, fd: int, size: int, spec: ArraySpec) -> str:
        read = partial(self._files.read, fd)
        if CHUNK_DIGESTS in self._plan.features:
            return digest_of_chunks(read, size, spec, hash_of(self._plan.features))
        digest, at = hashlib.sha256(), 0
        while piece := read(_PIECE_BYTES, at):
            digest.update(piece)
            at += len(piece)
        return digest.hexdigest()
