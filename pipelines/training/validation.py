"""Measuring a head on a test store while it is trained, as `evaluate` does afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from pipelines.evaluation.store_views import check_measurable, store_views, views_name
from pipelines.feed.prefetch import read_ahead
from pipelines.tasks import task_of
from pipelines.tasks.contract import percent
from pipelines.training.callbacks import is_due, log_everywhere
from pipelines.training.module import HeadModule
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
