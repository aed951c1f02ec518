"""Rows of each training step on each rank, a pure function of the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UsageError
from pipelines.feed.joined_stores import RowIndex, Rows
from pipelines.feed.ranks import rows_of_rank
from stores.sampling import training_rows, windowed_order
from stores.subsets import subset_keys


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRows:
    """What one rank trains on in one step; int64 (rows of the rank,) each."""

    rows: Rows
    visits: Rows
    """Of each row, which visit of its record this is, from 0."""
    read_at: Rows
    """Of each row, its number in `EndlessRows.as_read` from the same first step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Share:
    """What one rank shows of one epoch, in the order shown."""

    rows: Rows
    read_at: Rows
    epoch: int


class EndlessRows:
    """The rows of every step: of all epochs joined, step k has positions k x batch_size onwards, and ranks
    take turns at them.

    A pure function of (seed, step, rank, world): a resumed run sees the rows the killed one would have
    seen, and all ranks together those that one process would have. As mmengine's `InfiniteSampler`, an
    epoch's last rows share a batch with the next epoch's first.

    Args:
        index: every row there is.
        batch_size: rows of a step over all ranks, a multiple of `world`.
        seed: of the run.
        subset: share of the records, or a file of keys; None for all.
        window: rows of the shuffle window while shards are read forward; None, or an index that knows no
        shards, shuffles the whole epoch.
        rank, world: which of how many processes this is.
    """

    def __init__(
        self,
        index: RowIndex,
        *,
        batch_size: int,
        seed: int,
        subset: str | None = None,
        window: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._kept = rows_of_subset(index, subset)
        if not len(self._kept):
            raise UsageError("no rows to train on: the subset selects no records of the stores")
        keys = tuple(index.keys[row] for row in self._kept)
        self._index = RowIndex(keys=keys, views=index.views[self._kept])
        self._batch_size, self._seed, self._window = batch_size, seed, window
        self._shards = None if window is None or index.shards is None else index.shards[self._kept]
        self._rank, self._world = rank, world
        self.rows_a_step = rows_of_rank(batch_size, world)

    def batches(self, start_step: int, stop_step: int) -> Iterator[Rows]:
        """The row numbers of this rank in steps start_step..stop_step-1."""
        return (step.rows for step in self.steps(start_step, stop_step))

    def steps(self, start_step: int, stop_step: int) -> Iterator[StepRows]:
        """This rank's rows of steps start_step..stop_step-1, with what is known of them."""
        left = np.empty((3, 0), np.int64)
        shares = self._shares(start_step)
        for _ in range(start_step, stop_step):
            while left.shape[1] < self.rows_a_step:
                share = next(shares)
                visits = np.full_like(share.rows, share.epoch)
                left = np.concatenate([left, np.stack([share.rows, visits, share.read_at])], axis=1)
            rows, visits, read_at = left[:, : self.rows_a_step]
            yield StepRows(rows=rows, visits=visits, read_at=read_at)
            left = left[:, self.rows_a_step :]

    def as_read(self, start_step: int) -> Iterator[Rows]:
        """This rank's rows from a step on, in the order in which the disk is read, an epoch at a time."""
        for share in self._shares(start_step):
            yield share.rows[np.argsort(share.read_at)]

    def _shares(self, start_step: int) -> Iterator[_Share]:
        # Every epoch has as many rows, one for each record: a resumed run need not go through those before.
        length = len(self._epoch(0)[0])
        epoch, skip = divmod(start_step * self._batch_size, length)
        read = 0
        while True:
            rows, read_at = self._epoch(epoch)
            place = np.arange(skip, length)
            mine = place[(epoch * length + place) % self._world == self._rank]
            order = np.argsort(np.argsort(read_at[mine])) + read
            yield _Share(rows=rows[mine], read_at=order, epoch=epoch)
            read, epoch, skip = read + len(mine), epoch + 1, 0

    def _epoch(self, epoch: int) -> tuple[Rows, Rows]:
        """The epoch's rows as they are shown, and when each is read."""
        if self._window is None or self._shards is None:
            rows = training_rows(self._index, seed=self._seed, epoch=epoch)
            return self._kept[rows], np.arange(len(rows))
        order = windowed_order(self._index, self._shards, seed=self._seed, epoch=epoch, window=self._window)
        return self._kept[order.rows], order.read_at


def rows_of_subset(index: RowIndex, subset: str | None) -> Rows:
    """The rows of the records that a subset keeps. Raises ValueError for one that names unknown records."""
    if subset is None:
        return np.arange(len(index.keys), dtype=np.int64)
    kept = subset_keys(dict.fromkeys(index.keys), subset, index.listed, index.labels)
    return np.flatnonzero([key in kept for key in index.keys]).astype(np.int64)


def records_of_subset(index: RowIndex, subset: str | None) -> int:
    """How many records a subset keeps: the visits of one epoch."""
    return len({index.keys[row] for row in rows_of_subset(index, subset)})
