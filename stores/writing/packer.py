"""Packing: the committer writes the packed shards and the file of all receipts, unit by unit in plan order.

Their bytes follow from the receipts and the rows alone, so that two committers at once write the same files.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

from stores.format.array_spec import ArraySpec
from stores.format.arrays import packed_arrays
from stores.format.manifest import PackedShard
from stores.format.plan import StorePlan
from stores.shards.disk import Files, make_folders, naming, partial_of, remove_if_there, sync_file, write_all
from stores.shards.receipt_pack import PACK_PATH
from stores.shards.receipts import Receipt
from stores.shards.shard_index import crc32c, empty_index, encode_index
from stores.shards.spool import Chunks
from stores.shards.written_digest import Hash, chunks_sha256, hash_of

_BUFFER_BYTES = 4 << 20  # 4 MiB


class _Written:
    """A file written from its beginning to its end under the committer's own name."""

    def __init__(self, files: Files, root: Path, path: str, writer_id: str) -> None:
        self.path, self.end = path, 0
        self._files, self._final = files, root / path
        self._partial = partial_of(self._final, writer_id)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._fd: int | None = files.create(self._partial)

    def append(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self.end += len(data)
        if self._waiting_bytes >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting and self._fd is not None:
            with naming(self._partial):
                write_all(self._files, self._fd, [b"".join(self._waiting)], self.end - self._waiting_bytes)
        self._waiting, self._waiting_bytes = [], 0

    def finish(self) -> None:
        """The bytes are on the disk, under the committer's name."""
        self._flush()
        if self._fd is not None:
            sync_file(self._files, self._fd, self._partial)
        self._close()

    def rename(self) -> None:
        self._files.rename(self._partial, self._final)

    def discard(self) -> None:
        self._close()
        remove_if_there(self._files, self._partial)

    def _close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            self._files.close(fd)


class _PackedFile:
    """One packed shard: rows in order, the index last."""

    def __init__(self, written: _Written, spec: ArraySpec, hashed: Hash) -> None:
        self.written, self._spec, self._hashed = written, spec, hashed
        self._index = empty_index(spec.shard_rows or 1)
        self._digests: list[bytes] = []

    def append(self, first: int, chunks: Sequence[bytes | None]) -> None:
        """The chunks of rows from the position `first` on."""
        empty = b"" if self._spec.compressed else bytes(self._spec.stored_row_bytes)
        for position, chunk in enumerate(chunks, first):
            if chunk is None:
                self.written.append(empty)
                continue
            stored = chunk + struct.pack("<I", crc32c(chunk))
            self._index[position] = self.written.end, len(stored)
            self._digests.append(self._hashed(stored).digest())
            self.written.append(stored)

    def finish(self) -> PackedShard:
        index = encode_index(self._index)
        self.written.append(index)
        self.written.finish()
        return PackedShard(self.written.end, chunks_sha256(self._digests, index))


class Packer:
    """Takes the units of a store in the order of the plan, then puts all files in place.

    Args:
        writer_id: 32 hex digits, for the names of files that are not in place yet.
    """

    def __init__(self, files: Files, root: Path, plan: StorePlan, writer_id: str) -> None:
        self._files, self._root, self._plan, self._id = files, root, plan, writer_id
        self._arrays = [packed_arrays(plan, index) for index in range(len(plan.bins))]
        self._open: dict[str, _PackedFile] = {}
        self._open_is_of = -1, -1
        self._done: list[_Written] = []
        self.shards: dict[str, PackedShard] = {}
        """The packed shards by path, after `finish`."""
        self._receipts = _Written(files, root, PACK_PATH, writer_id)
        self._receipts_digest = hashlib.sha256()

    @property
    def receipts_sha256(self) -> str:
        """SHA-256 in hex of the file of all receipts."""
        return self._receipts_digest.hexdigest()

    def take(self, receipt: Receipt, chunks: Chunks) -> None:
        """Adds a unit. Raises OSError; discard then."""
        line = receipt.to_bytes() + b"\n"
        self._receipts.append(line)
        self._receipts_digest.update(line)
        rows = self._plan.shard_rows(receipt.shard)
        arrays = self._arrays[receipt.shard.bin]
        if not arrays:
            return
        shard_rows = next(iter(arrays.values())).shard_rows or 1
        number, first = divmod(rows.start, shard_rows)
        if self._open_is_of != (receipt.shard.bin, number):
            self._finish_open()
            self._open_is_of = receipt.shard.bin, number
            for name, spec in arrays.items():
                if not spec.flat:
                    make_folders(self._files, self._root, spec.chunk_file(number).rpartition("/")[0])
                written = _Written(self._files, self._root, spec.chunk_file(number), self._id)
                self._open[name] = _PackedFile(written, spec, hash_of(self._plan.features))
        for name, packed in self._open.items():
            packed.append(first, chunks[name])

    def _finish_open(self) -> None:
        finished = self._files.run_all([packed.finish for packed in self._open.values()])
        for packed, figures in zip(self._open.values(), finished, strict=True):
            self.shards[packed.written.path] = figures
            self._done.append(packed.written)
        self._open = {}

    def finish(self) -> None:
        """Puts every file in place; their folders are not synced yet."""
        self._finish_open()
        self._receipts.finish()
        self._files.run_all([written.rename for written in (*self._done, self._receipts)])

    def discard(self) -> None:
        """Deletes what is not in place; may be called twice."""
        for written in (*(packed.written for packed in self._open.values()), *self._done, self._receipts):
            written.discard()
