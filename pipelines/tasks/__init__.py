"""What differs between segmentation, detection and video in training, measuring and predicting: one file
a task, found by its name, with an object TASK."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from pipelines.tasks.contract import Figures, Task, TestView

__all__ = ["Figures", "Task", "TestView", "task_of"]


def task_of(name: str) -> Task:
    """The task of a data set, by the name in its stores' identity. Raises ValueError for an unknown one."""
    names = sorted({module.name for module in pkgutil.iter_modules(__path__)} - {"contract"})
    if name not in names:
        raise ValueError(f"no task {name!r}; there are {', '.join(names)}")
    found: Task = import_module(f"{__name__}.{name}").TASK
    return found
