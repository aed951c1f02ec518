"""Row order of an epoch, as shown and as read: pure functions of an index and a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


class RowIndex(Protocol):
    """Record and view of each row of a store; a `Store` is one."""

    @property
    def keys(self) -> Sequence[str]:
        """The record of each row."""

    @property
    def views(self) -> npt.NDArray[np.int32]:
        """(rows,) the view of each row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochOrder:
    """The rows of one epoch."""

    rows: Rows
    """int64 (n,), as they are shown."""
    read_at: Rows
    """int64 (n,), a permutation of 0..n-1: the place of each of `rows` when the disk is read forward."""


def training_rows(index: RowIndex, *, seed: int, epoch: int, rank: int = 0, world: int = 1) -> Rows:
    """The rows of one epoch on one rank, shuffled over the whole epoch: each record once over all ranks.

    Visit n of a record, which is epoch n, reads its view (n + hash(key)) mod V, so that every epoch mixes
    views and V epochs show each view once. If that view was skipped, the record's next one is used; a record
    without any view is left out. All orders of the rows are equally likely; the order is keyed by seed and
    epoch. Rows are dealt to the ranks in turn, so their shares differ by one row at most.

    Args:
        index: the store, or the keys and views of its rows. V is one more than the highest view in it.
        seed: of the run.
        epoch: from 0.
        rank: from 0, below `world`.
        world: ranks that share the epoch.

    Returns:
        int64 (rows of this rank,), numbers of rows of `index`.

    Raises:
        ValueError: a negative epoch, or a rank outside its world.
    """
    if epoch < 0 or not 0 <= rank < world:
        raise ValueError(
            f"epoch {epoch}, rank {rank} of {world}: expected an epoch from 0 and a rank below its world"
        )
    rows = _rows_of_epoch(index, epoch)
    return rows[shuffle(len(rows), "order", seed, epoch)][rank::world]


def windowed_order(index: RowIndex, shards: Rows, *, seed: int, epoch: int, window: int) -> EpochOrder:
    """The rows of `training_rows`, shuffled so that the disk is read forward, shard after shard.

    Shards are read in random order, each from front to end, and the rows read are shuffled within a window
    that fits in memory.

    Guarantees, which tests check: a row is shown less than `window` places from where it was read, so that at
    most `window` rows wait in memory; two rows read one after the other are shown a third of the window apart
    on average (two uniform draws' mean distance). Rows of a training store are ordered by a hash of their
    key, so a shard is already a random sample of the records. The cost of a window: rows of one shard stay
    near each other in every epoch, less so the more shards the window spans.

    Args:
        index: the store, or the keys and views of its rows.
        shards: int64 (rows,), the shard of each row; rows of one shard are numbered forward.
        seed: of the run.
        epoch: from 0.
        window: rows, 1 or more; 1 shows them in the order of reading.

    Raises:
        ValueError: a negative epoch or a window below 1.
    """
    if epoch < 0 or window < 1:
        raise ValueError(f"epoch {epoch}, window {window}: expected an epoch from 0 and a window from 1")
    rows = np.sort(_rows_of_epoch(index, epoch))
    _, shard = np.unique(shards[rows], return_inverse=True)
    turn = shuffle(int(shard.max(initial=-1)) + 1, "shards", seed, epoch)
    as_read = rows[np.argsort(turn[shard], kind="stable")]
    shown = _jittered(len(rows), window, seed, epoch)
    return EpochOrder(rows=as_read[shown], read_at=shown)


def _jittered(length: int, window: int, seed: int, epoch: int) -> Rows:
    """0..length-1 sorted by i + u_i x window, u_i uniform in [0, 1).

    Computed in whole numbers of 1/2**32 place, so that no machine rounds differently. i comes before j < i
    only where i < j + window: any row still waiting was read within `window` places of the row shown.
    """
    draws = _raw_words(length, "window", seed, epoch) >> np.uint64(32)
    places = (np.arange(length, dtype=np.uint64) << np.uint64(32)) + draws * np.uint64(window)
    return np.argsort(places, kind="stable").astype(np.int64)


def _rows_of_epoch(index: RowIndex, epoch: int) -> Rows:
    """One row for each record, in the order in which records first occur."""
    first_seen: dict[str, int] = {}
    record = np.array([first_seen.setdefault(key, len(first_seen)) for key in index.keys], dtype=np.int64)
    if not len(record):
        return record
    views = np.asarray(index.views, dtype=np.int64)
    view_count = int(views.max()) + 1
    wanted = np.array([(epoch + key_hash(key)) % view_count for key in first_seen], dtype=np.int64)
    # how many views past the wanted one a row is; each record's nearest row comes first once sorted
    distance = (views - wanted[record]) % view_count
    order = np.lexsort((distance, record))
    is_first = np.diff(record[order], prepend=-1) != 0
    rows: Rows = order[is_first].astype(np.int64)
    return rows


def key_hash(key: str) -> int:
    """64 bits of a record's key, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")


def shuffle(length: int, purpose: str, seed: int, epoch: int) -> Rows:
    """A permutation of `length` numbers keyed by a hash of its purpose, seed and epoch.

    It sorts the raw 64-bit words of a PCG64 generator, which are the same in all versions of numpy, whereas
    `Generator.permutation` may change (NEP 19): a run must resume under another version.
    """
    return np.argsort(_raw_words(length, purpose, seed, epoch), kind="stable").astype(np.int64)


def _raw_words(length: int, purpose: str, seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    digest = hashlib.sha256(f"permafrost {purpose} {seed} {epoch}".encode()).digest()
    return np.asarray(np.random.PCG64(int.from_bytes(digest, "little")).random_raw(length), dtype=np.uint64)


def batches(rows: Rows, batch: int, *, drop_last: bool) -> Iterator[Rows]:
    """The rows in order, `batch` at a time; a shorter last batch only without `drop_last`.

    >>> [part.tolist() for part in batches(np.arange(5), 2, drop_last=False)]
    [[0, 1], [2, 3], [4]]
    """
    if batch < 1:
        raise ValueError(f"batch {batch}, expected 1 or more")
    stop = len(rows) - len(rows) % batch if drop_last else len(rows)
    for start in range(0, stop, batch):
        yield rows[start : min(start + batch, stop)]
