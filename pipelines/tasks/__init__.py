"""Tasks by name: what differs between segmentation, detection and video; one file each, with TASK."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pipelines.tasks.contract import Figures, Task, TestView
from pipelines.tasks.info.contract import TaskInfo
from stores.plugins import missing_package, plugins

__all__ = ["Figures", "Task", "TaskInfo", "TestView", "task_for", "task_info", "task_names", "task_of"]

GROUP = "permafrost.tasks"
"""Of the entry points by which installed packages add tasks."""


def task_names() -> tuple[str, ...]:
    """The names that `task_of` accepts."""
    return tuple(plugins(GROUP, __name__))


def task_of(name: str, package: str | None = None) -> Task:
    """The task of a data set, by the name in its stores' identity.

    Args:
        name: one of `task_names`.
        package: that provided it when a store was made, for the error.

    Raises ValueError, listing the valid names, for an unknown one.
    """
    found = plugins(GROUP, __name__)
    if name not in found:
        raise ValueError(f"no task {name!r}; available: {', '.join(found)}{missing_package(package)}")
    task: Task = found[name].load().TASK
    return task


def task_for(dataset: Mapping[str, Any]) -> Task:
    """The task of a data set with what it needs to know of its classes.

    Args:
        dataset: of a store's identity.

    Raises ValueError as `task_of`.
    """
    task = task_of(str(dataset["task"]), dataset.get("task_package"))
    made_for = getattr(task, "for_dataset", None)
    found: Task = task if made_for is None else made_for(dataset)
    return found


def task_info(name: str) -> TaskInfo:
    """Names, units and order of a task's scores. Raises ValueError for an unknown task.

    Loads no torch for a task with a file in pipelines/tasks/info; for another it loads the task.
    """
    if name.isidentifier() and name != "contract" and find_spec(f"{__name__}.info.{name}"):
        found: TaskInfo = import_module(f"{__name__}.info.{name}").INFO
        return found
    return task_of(name).info
