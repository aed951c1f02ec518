"""`train-head --subset 10%,20%,100%`: the same run on several parts of the records, one after another."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.config import ManyHeadsConfig, TrainConfig
from pipelines.errors import UsageError

logger = logging.getLogger(__name__)


def subsets_of(config: TrainConfig | ManyHeadsConfig) -> tuple[str | None, ...]:
    """The parts of the records asked for, separated by commas; a file whose name has commas is one part.

    >>> subsets_of(TrainConfig(head="fpn", subset="10%, 50%,100%")), subsets_of(TrainConfig(head="fpn"))
    (('10%', '50%', '100%'), (None,))
    """
    first = config if isinstance(config, TrainConfig) else next(iter(config.heads.values()))
    if first.subset is None or Path(first.subset).is_file():
        return (first.subset,)
    return tuple(dict.fromkeys(part.strip() for part in first.subset.split(",")))


def train_subsets(
    config: TrainConfig | ManyHeadsConfig, train: Callable[[TrainConfig | ManyHeadsConfig], dict[str, Any]]
) -> dict[str, Any]:
    """Trains on every part. Returns the summary of each run.

    The runs stand in <run>/<part>, such as 10pct, where `run` was named, else each in a folder of its own
    choice. `report <run>` shows them side by side and draws their scores over the share of the records.

    Raises UsageError for --resume, which takes one of the folders, and for an empty part.
    """
    subsets = subsets_of(config)
    if config.resume:
        raise UsageError("--resume continues one run: pass --run with the folder of one --subset")
    if not all(subsets):
        raise UsageError(f"--subset {','.join(map(str, subsets))}: expected parts separated by commas")
    summaries = []
    for subset in subsets:
        logger.info("subset %s, of %s", subset, ", ".join(map(str, subsets)))
        summaries.append(train(_of_subset(config, str(subset))))
    return {"run": config.run, "subsets": list(subsets), "runs": summaries}


def _of_subset(config: TrainConfig | ManyHeadsConfig, subset: str) -> TrainConfig | ManyHeadsConfig:
    run = None if config.run is None else str(Path(config.run) / folder_name(subset))
    if isinstance(config, ManyHeadsConfig):
        heads = {name: dataclasses.replace(head, subset=subset) for name, head in config.heads.items()}
        return dataclasses.replace(config, run=run, heads=heads)
    return dataclasses.replace(config, run=run, subset=subset)


def folder_name(subset: str) -> str:
    """The folder of a part.

    >>> folder_name("10%"), folder_name("lists/half.txt")
    ('10pct', 'lists-half.txt')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", subset.replace("%", "pct")).strip("-.") or "subset"
