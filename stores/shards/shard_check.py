"""One shard file compared with its receipt."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from stores.errors import IntegrityError, PlanError
from stores.format.array_spec import CRC_BYTES, ArraySpec
from stores.format.bounded_files import OpenFile, StoreFolder
from stores.format.plan import StorePlan
from stores.format.row_table import WRITTEN
from stores.format.targets import RaggedTarget
from stores.shards.receipts import Receipt
from stores.shards.shard_file import FileFigures
from stores.shards.shard_index import ABSENT, crc32c, decode_index, wrong_index, wrong_length
from stores.shards.written_digest import Hash, chunks_sha256
from stores.shards.zstd_frames import decode_frame

_PIECE_BYTES = 1 << 20  # 1 MiB


def check_shard_file(
    folder: StoreFolder,
    spec: ArraySpec,
    path: str,
    figures: FileFigures,
    written: npt.NDArray[np.bool_],
    *,
    full: bool,
    chunk_hash: Hash | None,
) -> int:
    """Compares a file's length and index with its receipt and its array; with `full` also its sha256 and
    every chunk: its CRC32C and, where it is compressed, that it decodes.

    Args:
        folder: of the store.
        spec: the array by the plan.
        path: of the file.
        figures: from the receipt.
        written: (rows of this shard,) whether each holds data.
        full: reads every byte.
        chunk_hash: with `chunk-digests` the hash of its chunks; None: the digest is of all its bytes.

    Returns the bytes read.

    Raises IntegrityError, naming the file, for any difference.
    """
    opened = folder.open_whole(path) if full else folder.open(path)
    what = f"{folder.path}: {path}"
    if opened.size != figures.bytes:
        raise IntegrityError(f"{what} has {opened.size} bytes, expected {figures.bytes}")
    if (wrong := wrong_length(spec, len(written), opened.size)) is not None:
        raise IntegrityError(f"{what} {wrong} by plan.json")
    tail = opened.read(spec.index_bytes, opened.size - spec.index_bytes)
    if len(tail) != spec.index_bytes:
        raise IntegrityError(f"{what} has {opened.size} bytes, too few for its index")
    index = decode_index(tail, what)
    if [crc is not None for crc in figures.crc32c] != written.tolist():
        raise IntegrityError(f"{what}: its receipt holds checksums of other rows than were written")
    if (wrong := wrong_index(spec, index, written, opened.size)) is not None:
        raise IntegrityError(f"{what} {wrong}")
    if not full:
        return len(tail)
    if chunk_hash is not None:
        digest = digest_of_chunks(opened.read, opened.size, spec, chunk_hash)
    else:
        whole = hashlib.sha256()
        for piece in _pieces(opened, 0, opened.size):
            whole.update(piece)
        digest = whole.hexdigest()
    if digest != figures.digest:
        raise IntegrityError(f"{what} was changed: its digest is not the receipt's")
    decoded = np.empty(spec.row_bytes if spec.compressed else 0, dtype=np.uint8)
    for row, (expected, (offset, stored)) in enumerate(zip(figures.crc32c, index.tolist(), strict=False)):
        if expected is None:
            continue
        chunk = f"{what}: the chunk of row {row} of the shard"
        if _crc(opened, offset, stored - CRC_BYTES) != expected:
            raise IntegrityError(f"{chunk} does not have its CRC32C")
        beside = opened.read(CRC_BYTES, offset + stored - CRC_BYTES)
        if chunk_hash is not None and beside != expected.to_bytes(CRC_BYTES, "little"):
            raise IntegrityError(f"{chunk} does not have its CRC32C beside it")
        if spec.compressed:
            decode_frame(opened.read(stored - CRC_BYTES, offset), decoded, chunk)
    return opened.size


def digest_of_chunks(read: Callable[[int, int], bytes], size: int, spec: ArraySpec, hashed: Hash) -> str:
    """The digest of a shard file by its chunks, see stores.shards.written_digest. A file whose index does not
    lead through all its bytes, but for zeros in the place of skipped rows, has none: the answer is empty.

    Args:
        read: returns at most so many bytes from an offset of the file; none at its end.
        size: of the file in bytes.
        spec: its array.
        hashed: the hash of chunks.
    """
    tail = _exactly(read, spec.index_bytes, size - spec.index_bytes)
    if len(tail) != spec.index_bytes:
        return ""
    entries = np.frombuffer(tail[:-CRC_BYTES], "<u8").reshape(-1, 2).astype(object)
    digests, end = [], 0
    for offset, stored in entries[entries[:, 0] != ABSENT].tolist():
        if offset < end or offset + stored > size - len(tail) or not _is_zero(read, end, offset):
            return ""
        end = offset + stored
        digest = hashed(b"")
        for at in range(offset, end, _PIECE_BYTES):
            digest.update(_exactly(read, min(_PIECE_BYTES, end - at), at))
        digests.append(digest.digest())
    return chunks_sha256(digests, tail) if _is_zero(read, end, size - len(tail)) else ""


def _is_zero(read: Callable[[int, int], bytes], start: int, stop: int) -> bool:
    while start < stop:
        piece = read(min(_PIECE_BYTES, stop - start), start)
        if not piece or piece.count(0) != len(piece):
            return False
        start += len(piece)
    return True


def _exactly(read: Callable[[int, int], bytes], length: int, offset: int) -> bytes:
    """So many bytes, fewer at the end of the file."""
    parts: list[bytes] = []
    while length > 0 and offset >= 0 and (part := read(length, offset)):
        parts.append(part)
        length, offset = length - len(part), offset + len(part)
    return b"".join(parts)


def wrong_lengths(plan: StorePlan, receipt: Receipt) -> Iterator[str]:
    """Rows of ragged targets whose length does not fit the plan, one message a target."""
    local = plan.shard_rows(receipt.shard)
    original_hw = plan.rows.original_hw[plan.bin_rows[receipt.shard.bin][local.start : local.stop]].tolist()
    for target in plan.targets:
        if not isinstance(target, RaggedTarget):
            continue
        for hw, code, length in zip(original_hw, receipt.outcome, receipt.lengths[target.name], strict=True):
            try:
                if code == WRITTEN and length <= target.cap_bytes:
                    target.row_shape(hw, length)
                elif code == WRITTEN:
                    raise PlanError(f"target {target.name}: {length} bytes, at most {target.cap_bytes}")
            except PlanError as error:
                yield f"shard {plan.shard_name(receipt.shard)}: {error}"
                break


def _pieces(opened: OpenFile, start: int, length: int) -> Iterator[bytes]:
    at, stop = start, min(start + length, opened.size)
    while at < stop and (piece := opened.read(min(_PIECE_BYTES, stop - at), at)):
        yield piece
        at += len(piece)


def _crc(opened: OpenFile, offset: int, length: int) -> int:
    value = 0
    for piece in _pieces(opened, offset, length):
        value = crc32c(piece, value)
    return value
