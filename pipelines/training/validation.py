"""Validation of a head during training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from pipelines.catalog.choose_store import fitting_test_stores
from pipelines.catalog.moved_stores import located_test_store
from pipelines.catalog.stores import FoundStore
from pipelines.config import TrainConfig
from pipelines.evaluation.open_test_store import open_test_store
from pipelines.evaluation.store_measure import StoreMeasure
from pipelines.machine.devices import uses_bf16
from pipelines.runs.run_folder import RunRecord
from pipelines.runs.view_scale import scale_differences
from pipelines.tasks import task_info
from pipelines.training.callbacks import is_due, log_everywhere
from pipelines.training.module import HeadModule
from pipelines.training.run_length import share_of
from stores.remote.store_url import store_path

logger = logging.getLogger(__name__)


class Validation(Callback):
    """Measures the head on a test store every `every` steps, on rank 0."""

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
        # For callbacks that monitor a score; the loggers have it already.
        pl_module.log_dict(known, logger=False, rank_zero_only=trainer.world_size > 1)
        info = task_info(pl_module.head.task)
        shown = " ".join(f"{name} {info.score(name).shown(value)}" for name, value in self.last.items())
        prefix = self._name and f"{self._name}: "
        logger.info("%sstep %d/%d %s", prefix, trainer.global_step, self._max_steps, shown)


def _is_of_scale(store: FoundStore, record: RunRecord) -> bool:
    """Whether a store is of the scale the head is trained at; logs where it is not."""
    differences = list(scale_differences(record.identity["views"], store.identity["views"]))
    for field, expected, found in differences:
        logger.info(
            "%s is not of the training scale: %s %s instead of %s", store.path, field, found, expected
        )
    return not differences


def open_validation(
    config: TrainConfig, record: RunRecord, device: torch.device, opened: ExitStack, name: str
) -> Validation | None:
    """Validation on `val_store`, or on the only test store that matches; None if there is not exactly one."""
    if config.val_store is None:
        fitting = fitting_test_stores(record, store_path(record.stores_folder), pixels=config.pixels)
        found = [store.path for store in fitting if _is_of_scale(store, record)]
        if len(found) != 1:
            return None
    else:
        found = [located_test_store(config.val_store, record, Path(config.run or "."))]
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
