"""LightningDataModules of training: batches from stores, and the base of those from the live backbone."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from pipelines.config import TrainConfig
from pipelines.errors import UsageError
from pipelines.feed.joined_stores import JoinedStores, Rows
from pipelines.feed.pace import Reading
from pipelines.feed.resident_rows import ResidentFeed, ResidentRows, fit_in_memory
from pipelines.feed.row_order import EndlessRows, records_of_subset
from pipelines.feed.shard_read_ahead import ShardReadAhead
from pipelines.feed.store_feed import Batch, Finish, StoreFeed
from pipelines.runs.run_folder import StoreReference
from pipelines.runs.same_source import check_same_source
from pipelines.tasks import Task, task_of
from pipelines.tasks.contract import targets_there
from stores.format.plan import feature_row_bytes
from stores.pyramid import PyramidSpec
from stores.reading.reader import Store, open_store

AT_ONCE = 4
"""Rows read ahead in one call: their levels keep a few threads busy."""
_ENDLESS = 1 << 40
"""More batches than any run trains on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Which batches: of which steps, on which rank and device."""

    start_step: int
    stop_step: int
    device: torch.device
    rank: int = 0
    world: int = 1


class TrainingBatches:
    """Batches as Lightning's trainer takes them: one stream, which its epochs follow each other in.

    Lightning fetches a batch ahead of the one in training from an iterable without a length, only to learn
    whether there is another. That would keep two batches in memory, and it is the feed that reads ahead.

    Args:
        batches: those of every step to come.
        an_epoch: of an epoch of the trainer; None for a trainer that counts steps alone: so many that none is
            known to be the last.
    """

    def __init__(self, batches: Iterator[Batch], an_epoch: int | None = None) -> None:
        self._batches, self._an_epoch = batches, an_epoch

    def __iter__(self) -> Iterator[Batch]:
        return self._batches if self._an_epoch is None else islice(self._batches, self._an_epoch)

    def __len__(self) -> int:
        return _ENDLESS if self._an_epoch is None else self._an_epoch

    def state_dict(self) -> dict[str, Any]:
        """Nothing: which rows follow is known from the trainer's batch alone, within an epoch too."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing, as `state_dict`; with both, Lightning knows that a resumed run sees the right rows."""


class TestStores:
    """Test stores as Lightning's validation loop takes them: each is one batch, and measured whole."""

    __test__ = False  # not a test case of pytest

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = stores

    def __iter__(self) -> Iterator[Store]:
        return iter(self._stores)

    def __len__(self) -> int:
        return len(self._stores)


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
    batch_size: int
    """Rows of a batch over all ranks."""
    val_store: str | None = None
    """A test store that Lightning's validation loop measures the head on; None for none."""
    _opened: Store | None = None

    @property
    def row_costs(self) -> Mapping[str, Any]:
        """Of `RunCosts` what is known of a row before a head reads it; nothing of an online source."""
        return {}

    @property
    def padded_hw(self) -> tuple[int, int] | None:
        """Size in pixels of the most frequent view; None where it is not known."""
        return None

    @property
    def frames(self) -> int | None:
        """Frames of a row; None of images."""
        return None

    @property
    def task(self) -> Task:
        """That of the data set."""
        dataset = self.identity["dataset"]
        return task_of(str(dataset["task"]), dataset.get("task_package"))

    @property
    def target_names(self) -> tuple[str, ...]:
        """Targets that a head is given of each row."""
        return self.task.training_targets

    def batches(self, stretch: Stretch) -> Iterator[Batch]:
        """The batches of those steps."""
        raise NotImplementedError

    @property
    def reading(self) -> Reading:
        """What was read so far; nothing if unknown."""
        return Reading()

    def train_dataloader(self) -> TrainingBatches:
        """The batches from the trainer's next one on.

        For a trainer that counts epochs (`max_epochs`), one of them has so many batches that each record is
        shown at least once: the last batch is filled up with the first rows of the next epoch. For one that
        counts steps alone (`max_steps`), all of them are one epoch.

        Raises UsageError without a trainer.
        """
        if self.trainer is None:
            raise UsageError(
                f"{self.describe()}: batches for a trainer, and none is attached; call "
                "Trainer.fit(module, datamodule=data), or iterate over data.batches(Stretch(...))"
            )
        trainer = self.trainer
        start = trainer.fit_loop.total_batch_idx + 1
        an_epoch, stop = None, _ENDLESS
        if trainer.max_steps >= 0:
            stop = start + (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            an_epoch = -(-self.records // self.batch_size)
            stop = min(stop, trainer.max_epochs * an_epoch)
        stretch = Stretch(
            start_step=start,
            stop_step=stop,
            device=trainer.strategy.root_device,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        return TrainingBatches(self.batches(stretch), an_epoch)

    def val_dataloader(self) -> TestStores | list[Store]:
        """The test store of the configuration's `val_store`, as one batch; none without it.

        Raises IdentityError for a store of another data set, classes or backbone, and as `open_store` does.
        """
        if self.val_store is None:
            # Lightning warns of it, but a run without validation is a choice.
            warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
            return []
        if self._opened is None:
            store = open_store(self.val_store)
            check_same_source(self.identity, store.identity, str(store.path))
            self._opened = store
        return TestStores([self._opened])

    def teardown(self, stage: str) -> None:
        """Closes the test store; see LightningDataModule."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Leaves it as it is: the feed has already put it there."""
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
                rows=len(store),
                rows_planned=len(store.plan.rows),
            )
            for store in stores
        )
        self.records = records_of_subset(stores.index, config.subset)
        self.levels, self.batch_size, self.val_store = first.levels, config.batch_size, config.val_store
        self._feed: StoreFeed | ResidentFeed | None = None
        self._resident: ResidentRows | None = None
        self._ahead: ShardReadAhead | None = None

    def describe(self) -> str:
        return self._joined.describe()

    @property
    def padded_hw(self) -> tuple[int, int]:
        b = max(next(iter(self._joined)).plan.bins, key=lambda b: b.rows)
        return b.height_px, b.width_px

    @property
    def frames(self) -> int | None:
        return next(iter(self._joined)).plan.frames

    @property
    def row_costs(self) -> Mapping[str, Any]:
        plan = next(iter(self._joined)).plan
        read = plan.pyramid.select(self.stored_levels)
        of_levels = feature_row_bytes(read, plan.codec, *self.padded_hw, plan.frames)
        costs = plan.backbone_costs or {}
        return {
            "row_bytes": sum(of_levels.values()),
            "input_px": list(self.padded_hw),
            "tokens": costs.get("tokens"),
            "backbone_multiply_adds": costs.get("multiply_adds"),
        }

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

    def batches(self, stretch: Stretch) -> StoreFeed | ResidentFeed:
        """The batches of those steps; ends the reading for those that were asked for before."""
        self._stop_reading()
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
        if (resident := self._rows_in_memory()) is not None:
            steps = rows.batches(stretch.start_step, stretch.stop_step)
            self._feed = ResidentFeed(resident, steps, stretch.device)
            return self._feed
        self._feed = StoreFeed(
            self._joined,
            self._row_batches(rows, stretch),
            batch_size=rows.rows_a_step,
            levels=self.stored_levels,
            task=self.task,
            device=stretch.device,
            finish=self.finish(stretch.device),
        )
        return self._feed

    @property
    def reading(self) -> Reading:
        return Reading() if self._feed is None else self._feed.reading

    def teardown(self, stage: str) -> None:
        super().teardown(stage)
        self._stop_reading()

    def close(self) -> None:
        self._stop_reading()
        self._joined.close()

    def _rows_in_memory(self) -> ResidentRows | None:
        """All rows, where they are pooled vectors and fit; read once for all stretches of a run."""
        targets = targets_there(self.task, self.task.training_targets, self._joined.targets)
        if self._resident is not None and self._resident.levels == tuple(self.stored_levels):
            return self._resident
        if fit_in_memory(self._joined, self.stored_levels, targets):
            self._resident = ResidentRows(self._joined, self.stored_levels, self.task)
            return self._resident
        return None

    def _stop_reading(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
        if self._feed is not None:
            self._feed.close()

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
