"""What differs between segmentation, detection and video in training, measuring and predicting: one file
a task, found by its name, with an object TASK."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.util import find_spec

from pipelines.tasks.contract import Figures, Task, TestView
from pipelines.tasks.info.contract import TaskInfo

__all__ = ["Figures", "Task", "TaskInfo", "TestView", "task_info", "task_of"]


def task_of(name: str) -> Task:
    """The task of a data set, by the name in its stores' identity. Raises ValueError for an unknown one."""
    files = {module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg}
    names = sorted(files - {"contract"})
    if name not in names:
        raise ValueError(f"no task {name!r}; available: {', '.join(names)}")
    found: Task = import_module(f"{__name__}.{name}").TASK
    return found


def task_info(name: str) -> TaskInfo:
    """Names, units and order of a task's scores. Raises ValueError for an unknown task.

    Loads no torch for a task with a file in pipelines/tasks/info; for another it loads the task.
    """
    if name.isidentifier() and name != "contract" and find_spec(f"{__name__}.info.{name}"):
        found: TaskInfo = import_module(f"{__name__}.info.{name}").INFO
        return found
    return task_of(name).info
