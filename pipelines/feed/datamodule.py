"""Where a run's batches come from, as Lightning wants it: stores here, the live backbone in
pipelines/feed/online_data.py."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from pipelines.config import TrainConfig
from pipelines.feed.joined_stores import JoinedStores, Rows
from pipelines.feed.pace import Reading
from pipelines.feed.row_order import EndlessRows, records_of_subset
from pipelines.feed.shard_read_ahead import ShardReadAhead
from pipelines.feed.store_feed import Batch, Finish, StoreFeed
from pipelines.runs.run_folder import StoreReference
from pipelines.tasks import task_of
from stores.pyramid import PyramidSpec

AT_ONCE = 4
"""Rows read ahead in one call: their levels keep a few threads busy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """The batches somebody wants: of which steps, on which rank, and where."""

    start_step: int
    stop_step: int
    device: torch.device
    rank: int = 0
    world: int = 1


class TrainingBatches:
    """Batches as Lightning's trainer takes them: so many that none is known to be the last.

    Lightning fetches a batch ahead of the one in training from an iterable without a length, only to learn
    whether there is another. That would keep two batches in memory, and it is the feed that reads ahead.
    """

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return self._batches

    def __len__(self) -> int:
        return 1 << 40


class TrainingData(LightningDataModule):
    """Where a run's batches come from: what it says of itself, and the batches of a stretch of steps."""

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

    @property
    def target_names(self) -> tuple[str, ...]:
        """Targets that a head is given of each row."""
        return task_of(self.identity["dataset"]["task"]).training_targets

    def batches(self, stretch: Stretch) -> Iterator[Batch]:
        """The batches of those steps."""
        raise NotImplementedError

    @property
    def reading(self) -> Reading:
        """What was read so far; nothing where that is not known."""
        return Reading()

    def train_dataloader(self) -> TrainingBatches:
        """The batches from the trainer's step on."""
        assert self.trainer is not None
        trainer = self.trainer
        stretch = Stretch(
            start_step=trainer.global_step,
            stop_step=trainer.max_steps,
            device=trainer.strategy.root_device,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        return TrainingBatches(self.batches(stretch))

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
        self.records = records_of_subset(stores.index, config.subset)
        self.levels = first.levels
        self._feed: StoreFeed | None = None
        self._ahead: ShardReadAhead | None = None

    def describe(self) -> str:
        return self._joined.describe()

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple(name for name in super().target_names if all(name in s.targets for s in self._joined))

    @property
    def stored_levels(self) -> tuple[str, ...]:
        """The `levels` that are read."""
        return self.levels

    def finish(self, device: torch.device) -> Finish | None:
        """What else is done to a batch; see pipelines/feed/recomputed_data.py."""
        return None

    def batches(self, stretch: Stretch) -> StoreFeed:
        config = self._config
        rows = EndlessRows(
            self._joined.index,
            batch_size=config.batch_size,
            seed=config.seed,
            subset=config.subset,
            window=config.shuffle_window,
            rank=stretch.rank,
            world=stretch.world,
        )
        self._feed = StoreFeed(
            self._joined,
            self._row_batches(rows, stretch),
            batch_size=rows.rows_a_step,
            levels=self.stored_levels,
            task=task_of(str(self.identity["dataset"]["task"])),
            device=stretch.device,
            finish=self.finish(stretch.device),
        )
        return self._feed

    @property
    def reading(self) -> Reading:
        return Reading() if self._feed is None else self._feed.reading

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
        if self._feed is not None:
            self._feed.close()
        self._joined.close()

    def _row_batches(self, rows: EndlessRows, stretch: Stretch) -> Iterator[Rows]:
        window = self._config.shuffle_window
        if window is None:
            return rows.batches(stretch.start_step, stretch.stop_step)
        levels = self.stored_levels
        scratch = self._joined.buffers(AT_ONCE, levels)
        self._ahead = ShardReadAhead(
            rows.as_read(stretch.start_step),
            lambda some: self._joined.read_encoded(some, levels, scratch),
            window=window // stretch.world + rows.rows_a_step,
            at_once=AT_ONCE,
        )
        return self._behind(self._ahead, rows, stretch)

    @staticmethod
    def _behind(ahead: ShardReadAhead, rows: EndlessRows, stretch: Stretch) -> Generator[Rows, None, None]:
        """The rows of each step, once they have been read ahead. Runs in the feed's thread."""
        for step in rows.steps(stretch.start_step, stretch.stop_step):
            ahead.wait_for(step.read_at)
            yield step.rows
            ahead.shown(len(step.rows))
