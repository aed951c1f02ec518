"""Measuring a head on a test store while it is trained, as `evaluate` does afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import torch

from heads.contract import Head
from pipelines.evaluation.store_views import check_measurable, store_views, views_name
from pipelines.tasks import task_for
from pipelines.tasks.contract import targets_there
from stores.reading.reader import Store

if TYPE_CHECKING:  # at run time it loads the backbone's packages
    from pipelines.live.recompute_levels import ShallowLevels


class Measured(Protocol):
    """A module with a head, such as HeadModule."""

    head: Head

    @property
    def device(self) -> torch.device: ...


class StoreMeasure:
    """Figures of a module's head on one test store."""

    def __init__(self, store: Store, bf16: bool, shallow: ShallowLevels | None = None) -> None:
        """Args:
        shallow: what recomputes the levels that the store lacks; None where it holds all.
        """
        self._store, self._bf16, self._shallow = store, bf16, shallow

    def __call__(self, module: Measured) -> Mapping[str, float | None]:
        """`Figures.scores`. The module is in evaluation mode."""
        task = task_for(self._store.identity["dataset"])
        levels, shallow = module.head.levels, self._shallow
        check_measurable(self._store, levels, task, shallow)
        truth = targets_there(task, task.test_targets, self._store.targets)
        with closing(store_views(self._store, levels, truth, module.device, shallow)) as views:
            return task.measure(
                module.head, views, views_name=views_name(self._store), device=module.device, bf16=self._bf16
            ).scores()
