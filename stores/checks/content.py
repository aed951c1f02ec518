"""The content digest of a store, computed from every byte of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.format.arrays import bin_tables, sharded_arrays
from stores.format.row_table import WRITTEN
from stores.format.targets import RaggedTarget
from stores.reading.committed_store import CommittedStore, read_committed
from stores.reading.store_arrays import StoreArrays
from stores.shards.content_digest import content_digest, row_digest
from stores.shards.written_digest import hash_of

_THREADS = 4


def content_digest_of(path: str | Path) -> str:
    """The content digest of a committed store, 64 hex digits, from its rows and not from its receipts.

    Raises NoSuchStore, IncompleteStore or IntegrityError as reading does; OSError where the disk failed.
    """
    committed = read_committed(path)
    arrays = StoreArrays(committed, "always", _THREADS)
    try:
        return content_digest(committed.plan, _rows(committed, arrays))
    finally:
        arrays.close()


def _rows(committed: CommittedStore, arrays: StoreArrays) -> Iterator[tuple[int, int, bytes]]:
    plan, hashed = committed.plan, hash_of(committed.plan.features)
    lengths = [_lengths(committed, arrays, index) for index in range(len(plan.bins))]
    names = [tuple(sharded_arrays(plan, index)) for index in range(len(plan.bins))]
    local = np.empty(len(plan.rows), dtype=np.int64)
    for rows in plan.bin_rows:
        local[rows] = np.arange(len(rows))
    for row in np.flatnonzero(committed.outcome == WRITTEN).tolist():
        index, of_bin = int(plan.rows.bin[row]), int(local[row])
        digests = {}
        for name in names[index]:
            stored = arrays.reader(index, name).spec.stored(arrays.read(index, name, [of_bin]))[0]
            data = stored.reshape(-1).view(np.uint8)
            if name in lengths[index]:
                data = data[: int(lengths[index][name][of_bin])]
            digests[name] = hashed(data.data).digest()
        yield row, WRITTEN, row_digest(digests)


def _lengths(committed: CommittedStore, arrays: StoreArrays, index: int) -> dict[str, npt.NDArray[Any]]:
    """Bytes of the rows of each ragged target of a bin."""
    tables = bin_tables(committed.plan, index)
    ragged = (f"targets/{t.name}" for t in committed.plan.targets if isinstance(t, RaggedTarget))
    return {name: arrays.table(index, f"{name}_bytes") for name in ragged if f"{name}_bytes" in tables}
