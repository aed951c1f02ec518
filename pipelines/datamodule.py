"""Where a run's batches come from, as Lightning wants it: stores here, the live backbone in
pipelines/online.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from pipelines.config import TrainConfig
from pipelines.exit_codes import UsageError
from pipelines.joined_stores import JoinedStores, RowIndex, Rows
from pipelines.runs import StoreReference
from pipelines.store_feed import Batch, StoreFeed
from pipelines.tasks import task_of
from stores.pyramid import PyramidSpec
from stores.sampling import training_rows
from stores.subset import subset_keys


class EndlessRows:
    """Batches of row numbers over epochs without end: batch k holds positions k*B..(k+1)*B of all epochs
    joined.

    A pure function of (seed, step, rank, world), so a resumed run sees the rows the killed one would have
    seen. As mmengine's `InfiniteSampler`, an epoch's last rows share a batch with the next epoch's first.
    """

    def __init__(
        self,
        index: RowIndex,
        *,
        batch_size: int,
        seed: int,
        subset: str | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._kept = _rows_of_subset(index, subset)
        keys = tuple(index.keys[row] for row in self._kept)
        self._index = RowIndex(keys=keys, views=index.views[self._kept])
        self._batch_size, self._seed, self._rank, self._world = batch_size, seed, rank, world

    def batches(self, start_step: int, stop_step: int) -> Iterator[Rows]:
        """The row numbers, int64 (batch_size,), of steps start_step..stop_step-1."""
        return (rows for rows, _ in self.visits(start_step, stop_step))

    def visits(self, start_step: int, stop_step: int) -> Iterator[tuple[Rows, Rows]]:
        """The row numbers of each step and, for each row, which visit of its record this is, from 0."""
        # Every epoch has as many rows, one for each record: a resumed run need not go through those before.
        epoch, skip = divmod(start_step * self._batch_size, len(self._epoch(0)))
        left = np.empty((2, 0), np.int64)
        for _ in range(start_step, stop_step):
            while left.shape[1] < self._batch_size:
                rows = self._epoch(epoch)[skip:]
                left = np.concatenate([left, np.stack([rows, np.full_like(rows, epoch)])], axis=1)
                epoch, skip = epoch + 1, 0
            yield left[0, : self._batch_size], left[1, : self._batch_size]
            left = left[:, self._batch_size :]

    def _epoch(self, epoch: int) -> Rows:
        chosen = training_rows(self._index, seed=self._seed, epoch=epoch, rank=self._rank, world=self._world)
        if not len(chosen):
            raise UsageError(f"there are no rows for rank {self._rank} of {self._world} to train on")
        return self._kept[chosen]


def _rows_of_subset(index: RowIndex, subset: str | None) -> Rows:
    if subset is None:
        return np.arange(len(index.keys), dtype=np.int64)
    kept = subset_keys(dict.fromkeys(index.keys), subset)
    return np.flatnonzero([key in kept for key in index.keys]).astype(np.int64)


def _records_of_subset(index: RowIndex, subset: str | None) -> int:
    return len({index.keys[row] for row in _rows_of_subset(index, subset)})


class TrainingData(LightningDataModule):
    """Where a run's batches come from: what it says of itself, and the batches from the trainer's step on."""

    name: str
    """For the run's folder."""
    pyramid: PyramidSpec
    """The levels there are."""
    identity: dict[str, Any]
    """See stores; an online source makes up what a store of its rows would have."""
    stores: tuple[StoreReference, ...]
    records: int
    """Those it draws from, after the subset: the visits of one epoch."""
    levels: tuple[str, ...]
    """Those the head reads; set before the first batch."""

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Leaves it: the feed has already put it there."""
        return batch

    def describe(self) -> str:
        """For messages."""
        raise NotImplementedError

    def close(self) -> None:
        """Stops what runs beside the training and closes what is open."""
        raise NotImplementedError


class StoreData(TrainingData):
    """The batches of a run from stores alone."""

    def __init__(self, stores: JoinedStores, config: TrainConfig) -> None:
        super().__init__()
        self._joined, self._config = stores, config
        first = next(iter(stores))
        self.name, self.pyramid, self.identity = first.path.name, first.pyramid, first.identity
        self.stores = tuple(
            StoreReference(
                path=str(store.path.resolve()),
                identity_digest=store.identity_digest,
                manifest_digest=store.manifest_digest,
            )
            for store in stores
        )
        self.records = _records_of_subset(stores.index, config.subset)
        self.levels = first.levels
        self._feed: StoreFeed | None = None

    def describe(self) -> str:
        return self._joined.describe()

    def train_dataloader(self) -> StoreFeed:
        assert self.trainer is not None
        config, trainer = self._config, self.trainer
        rows = EndlessRows(
            self._joined.index,
            batch_size=config.batch_size,
            seed=config.seed,
            subset=config.subset,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        self._feed = StoreFeed(
            self._joined,
            rows.batches(trainer.global_step, trainer.max_steps),
            batch_size=config.batch_size,
            levels=self.levels,
            task=task_of(str(self.identity["dataset"]["task"])),
            device=trainer.strategy.root_device,
        )
        return self._feed

    def close(self) -> None:
        if self._feed is not None:
            self._feed.close()
        self._joined.close()
