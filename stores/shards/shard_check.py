"""One shard file compared with its receipt."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

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
from stores.shards.shard_index import crc32c, decode_index, wrong_index, wrong_length
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

    Returns the bytes read.

    Raises IntegrityError, naming the file, for any difference.
    """
    opened = folder.open(path)
    what = f"{folder.path}: {path}"
    if opened.size != figures.bytes:
        raise IntegrityError(f"{what} has {opened.size} bytes, expected {figures.bytes}")
    if (wrong := wrong_length(spec, len(written), opened.size)) is not None:
        raise IntegrityError(f"{what} {wrong} by plan.json")
    tail = os.pread(opened.fd, spec.index_bytes, opened.size - spec.index_bytes)
    if len(tail) != spec.index_bytes:
        raise IntegrityError(f"{what} has {opened.size} bytes, too few for its index")
    index = decode_index(tail, what)
    if [crc is not None for crc in figures.crc32c] != written.tolist():
        raise IntegrityError(f"{what}: its receipt holds checksums of other rows than were written")
    if (wrong := wrong_index(spec, index, written, opened.size)) is not None:
        raise IntegrityError(f"{what} {wrong}")
    if not full:
        return len(tail)
    digest = hashlib.sha256()
    for piece in _pieces(opened, 0, opened.size):
        digest.update(piece)
    if digest.hexdigest() != figures.sha256:
        raise IntegrityError(f"{what} was changed: its sha256 is not the receipt's")
    decoded = np.empty(spec.row_bytes if spec.compressed else 0, dtype=np.uint8)
    for row, (expected, (offset, stored)) in enumerate(zip(figures.crc32c, index.tolist(), strict=False)):
        if expected is None:
            continue
        chunk = f"{what}: the chunk of row {row} of the shard"
        if _crc(opened, offset, stored - CRC_BYTES) != expected:
            raise IntegrityError(f"{chunk} does not have its CRC32C")
        if spec.compressed:
            decode_frame(os.pread(opened.fd, stored - CRC_BYTES, offset), decoded, chunk)
    return opened.size


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
    while at < stop and (piece := os.pread(opened.fd, min(_PIECE_BYTES, stop - at), at)):
        yield piece
        at += len(piece)


def _crc(opened: OpenFile, offset: int, length: int) -> int:
    value = 0
    for piece in _pieces(opened, offset, length):
        value = crc32c(piece, value)
    return value
