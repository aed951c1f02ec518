"""Measuring a head on a test store while it is trained, as `evaluate` does afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from pipelines.catalog.choose_store import fitting_test_stores
from pipelines.config import TrainConfig
from pipelines.evaluation.open_test_store import open_test_store
from pipelines.evaluation.store_views import check_measurable, store_views, views_name
from pipelines.feed.prefetch import read_ahead
from pipelines.machine.devices import uses_bf16
from pipelines.runs.run_folder import RunRecord
from pipelines.tasks import task_of
from pipelines.tasks.contract import percent
from pipelines.training.callbacks import is_due, log_everywhere
from pipelines.training.module import HeadModule
from pipelines.training.run_length import share_of
from stores.reading.reader import Store

if TYPE_CHECKING:  # at run time it loads the backbone's packages
    from pipelines.live.recompute_levels import ShallowLevels

logger = logging.getLogger(__name__)


class StoreMeasure:
    """Figures of a module's head on one test store."""

    def __init__(self, store: Store, bf16: bool, shallow: ShallowLevels | None = None) -> None:
        """Args:
        shallow: what recomputes the levels that the store lacks; None where it holds all.
        """
        self._store, self._bf16, self._shallow = store, bf16, shallow

    def __call__(self, module: HeadModule) -> Mapping[str, float | None]:
        """`Figures.scores`. The module is in evaluation mode."""
        task = task_of(module.head.task)
        levels, shallow = module.head.levels, self._shallow
        check_measurable(self._store, levels, task, shallow)
        source = store_views(self._store, levels, task.test_targets, module.device, shallow)
        with closing(read_ahead(source, depth=1)) as views:
            return task.measure(
                module.head, views, views_name=views_name(self._store), device=module.device, bf16=self._bf16
            ).scores()


class Validation(Callback):
    """Measures the head on a test store every so many steps, on rank 0."""

    def __init__(
        self,
        measure: Callable[[HeadModule], Mapping[str, float | None]],
        *,
        every: int,
        max_steps: int,
        name: str = "",
    ) -> None:
        self._measure, self._every, self._max_steps, self._name = measure, every, max_steps, name
        self.last: Mapping[str, float | None] = {}
        """The scores of the last validation."""

    def follows(self, step: int) -> bool:
        """Whether it comes after step `step`."""
        return is_due(step, self._every, self._max_steps)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, HeadModule)
        if not (trainer.is_global_zero and self.follows(trainer.global_step)):
            return
        pl_module.eval()
        self.last = self._measure(pl_module)
        pl_module.train()
        known = {name: value for name, value in self.last.items() if value is not None}
        log_everywhere(trainer, known, trainer.global_step)
        shown = " ".join(f"{name} {percent(value)}" for name, value in self.last.items())
        prefix = self._name and f"{self._name}: "
        logger.info("%sstep %d/%d %s", prefix, trainer.global_step, self._max_steps, shown)


def open_validation(
    config: TrainConfig, record: RunRecord, device: torch.device, opened: ExitStack, name: str
) -> Validation | None:
    """Measures on the named test store, or on the one that fits if there is exactly one."""
    if config.val_store is None:
        fitting = fitting_test_stores(record, Path(record.stores_folder), pixels=config.pixels)
        found = [store.path for store in fitting]
        if len(found) != 1:
            return None
    else:
        found = [Path(config.val_store)]
    store, shallow = open_test_store(
        found[0],
        record,
        opened,
        device=device,
        threads=config.threads,
        pixels=config.pixels,
        data=config.data,
        weights=record.weights,
    )
    every = share_of(config.max_steps) if config.val_every is None else config.val_every
    measure = StoreMeasure(store, uses_bf16(config.precision, device), shallow)
    return Validation(measure, every=every, max_steps=config.max_steps, name=name)
