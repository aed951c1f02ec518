"""Whether any head of a task can read a store, known before anything is extracted."""

from __future__ import annotations

from collections.abc import Sequence

from heads.building import head_preset, levels_read
from heads.errors import HeadError
from heads.index import head_names
from pipelines.catalog.missing_levels import are_shallower
from pipelines.errors import UsageError
from stores.pyramid import PyramidSpec


def require_readable(task: str, stored: PyramidSpec, recomputable: Sequence[str] = (), *, model: str) -> None:
    """Refuses levels that no head of the task can read.

    Args:
        task: of the data set.
        stored: the levels to store.
        recomputable: levels that count as there where they are shallower than all stored ones.
        model: for the message.

    Raises UsageError, naming what the task's heads need.
    """
    problems = []
    for name in head_names(task):
        try:
            levels_read(name, task, stored)
        except HeadError as error:
            missing = [level for level in head_preset(name, task).levels if level not in stored]
            if missing and set(missing) <= set(recomputable) and are_shallower(missing, stored.names):
                return
            problems.append(str(error))
            continue
        return
    raise UsageError(
        f"--levels {','.join(stored.names)} of {model}: no head of {task} can read them, for example: "
        f"{problems[0]}"
    )
