"""Packed rows of finished work units: from their spools, or from packed shards of an earlier commit.

Every chunk is compared with the CRC32C in the unit's receipt, so that it does not matter where it was found.
"""

from __future__ import annotations

import errno
import struct
from pathlib import Path

from stores.errors import IntegrityError, StoreError
from stores.format.array_spec import CRC_BYTES, ArraySpec
from stores.format.arrays import packed_arrays
from stores.format.plan import ShardId, StorePlan
from stores.shards.disk import Files, read_whole
from stores.shards.receipts import Receipt
from stores.shards.shard_index import ABSENT, crc32c
from stores.shards.spool import Chunks, SpoolFigures, decode_spool, is_empty, spool_path
from stores.shards.written_digest import hash_of
from stores.shards.zstd_frames import frame_bound

_ENTRY = struct.Struct("<QQ")
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


class UnitRows:
    """The packed rows of the units of a store that is being written. Caches nothing."""

    def __init__(self, files: Files, root: Path, plan: StorePlan) -> None:
        self._files, self._root, self._plan = files, root, plan
        self.arrays = [packed_arrays(plan, index) for index in range(len(plan.bins))]

    def chunks(self, receipt: Receipt) -> Chunks:
        """Every packed chunk of a unit. Raises IntegrityError where neither source has all of them."""
        spool = receipt.spool
        if spool is None:
            return {}
        if is_empty(spool.crc32c):
            return {name: [None] * len(crcs) for name, crcs in spool.crc32c.items()}
        try:
            return self._from_spool(receipt.shard, spool)
        except IntegrityError as error:
            problem = error
        try:
            return self._from_shards(receipt.shard, spool)
        except IntegrityError:
            raise problem from None

    def damage(self, receipt: Receipt, *, full: bool) -> str | None:
        """What is wrong with a unit's packed rows; None for nothing. A spool is compared by its length, with
        `full` by every byte; rows in packed shards always by every byte."""
        spool = receipt.spool
        if spool is None:
            return None
        if not full and self._spool_bytes(receipt.shard) == spool.bytes:
            return None
        try:
            self.chunks(receipt)
        except IntegrityError as error:
            return str(error)
        return None

    def in_shards(self, receipt: Receipt) -> bool:
        """Whether the packed shards hold every packed row of a unit."""
        try:
            if receipt.spool is not None:
                self._from_shards(receipt.shard, receipt.spool)
        except IntegrityError:
            return False
        return True

    def _spool_bytes(self, shard: ShardId) -> int | None:
        try:
            fd = self._files.open(self._root / spool_path(self._plan.shard_name(shard)))
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            return None
        try:
            return self._files.size(fd)
        finally:
            self._files.close(fd)

    def _from_spool(self, shard: ShardId, figures: SpoolFigures) -> Chunks:
        path = spool_path(self._plan.shard_name(shard))
        try:
            data = read_whole(self._files, self._root / path, figures.bytes)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            raise IntegrityError(f"{path} is missing") from None
        except StoreError as error:  # longer than expected
            raise IntegrityError(str(error)) from None
        names, rows = list(self.arrays[shard.bin]), len(self._plan.shard_rows(shard))
        return decode_spool(data, hash_of(self._plan.features), names, rows, figures, path)

    def _from_shards(self, shard: ShardId, figures: SpoolFigures) -> Chunks:
        rows = self._plan.shard_rows(shard)
        found: Chunks = {}
        for name, spec in self.arrays[shard.bin].items():
            number, first = divmod(rows.start, spec.shard_rows or 1)
            crcs = figures.crc32c[name]
            found[name] = [None] * len(crcs)
            if all(crc is None for crc in crcs):
                continue
            path = spec.chunk_file(number)
            try:
                fd = self._files.open(self._root / path)
            except OSError as error:
                if error.errno not in _MISSING:
                    raise
                raise IntegrityError(f"{path} is missing") from None
            try:
                size = self._files.size(fd)
                for position, expected in enumerate(crcs):
                    if expected is not None:
                        chunk = self._chunk(fd, size, spec, first + position)
                        if chunk is None or crc32c(chunk) != expected:
                            raise IntegrityError(f"{path}: row {first + position} of the shard is damaged")
                        found[name][position] = chunk
            finally:
                self._files.close(fd)
        return found

    def _chunk(self, fd: int, size: int, spec: ArraySpec, position: int) -> bytes | None:
        """The chunk at a position of a packed shard, without its CRC32C; None where it cannot be there."""
        if not spec.compressed:
            return self._exactly(fd, spec.row_bytes, position * spec.stored_row_bytes)
        at = size - spec.index_bytes + position * _ENTRY.size
        entry = self._exactly(fd, _ENTRY.size, at) if at >= 0 else None
        if entry is None:
            return None
        offset, stored = _ENTRY.unpack(entry)
        bound = frame_bound(spec.row_bytes) + CRC_BYTES
        if offset == ABSENT or not CRC_BYTES < stored <= bound or offset + stored > size:
            return None
        return self._exactly(fd, stored - CRC_BYTES, offset)

    def _exactly(self, fd: int, length: int, offset: int) -> bytes | None:
        data = b""
        while len(data) < length:
            part = self._files.read(fd, length - len(data), offset + len(data))
            if not part:
                return None
            data += part
        return data
