"""Measuring a head on a test store while it is trained, as `evaluate` does afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from pipelines.evaluation import check_measurable, store_views, views_name
from pipelines.module import HeadModule
from pipelines.read_ahead import read_ahead
from pipelines.tasks import task_of
from stores.reader import Store


class StoreMeasure:
    """Figures of a module's head on one test store."""

    def __init__(self, store: Store, bf16: bool) -> None:
        self._store, self._bf16 = store, bf16

    def __call__(self, module: HeadModule) -> Mapping[str, float]:
        """`Figures.scores`, 0..1. The module is in evaluation mode."""
        task = task_of(module.head.task)
        check_measurable(self._store, module.head.levels, task)
        source = store_views(self._store, module.head.levels, task.test_targets, module.device)
        with closing(read_ahead(source, depth=1)) as views:
            return task.measure(
                module.head, views, views_name=views_name(self._store), device=module.device, bf16=self._bf16
            ).scores()
