"""`train-head --seeds N`: the same run with N seeds, one after another."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.config import GROUP_RECORD, RUN_CONFIG, ManyHeadsConfig, TrainConfig, config_yaml
from pipelines.errors import UsageError
from pipelines.runs.run_folder import RUN_RECORD

logger = logging.getLogger(__name__)


def seeds_of(config: TrainConfig | ManyHeadsConfig) -> range:
    """The seeds asked for: `seed` and those after it."""
    first = config if isinstance(config, TrainConfig) else next(iter(config.heads.values()))
    if first.seeds < 1:
        raise UsageError(f"--seeds {first.seeds}: expected 1 or more")
    return range(first.seed, first.seed + first.seeds)


def train_seeds(
    config: TrainConfig | ManyHeadsConfig, train: Callable[[TrainConfig | ManyHeadsConfig], dict[str, Any]]
) -> dict[str, Any]:
    """Trains with every seed. Returns the summary of each run.

    The runs stand in <run>/seed<n>, where `run` was named, else each in a folder of its own choice. A resumed
    group of one head continues the runs that were begun and starts the others; several heads are resumed
    seed by seed, by the folder <run>/seed<n>.

    Raises UsageError where the folder named holds other runs, whose configuration this would overwrite.
    """
    seeds, folder = seeds_of(config), Path(config.run) if config.run else None
    if folder is not None:
        _refuse_other_runs(folder, config.resume)
    if folder is not None and isinstance(config, TrainConfig):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN_CONFIG).write_text(config_yaml(dataclasses.replace(config, resume=False)))
    summaries = []
    try:
        for seed in seeds:
            logger.info("seed %d, of %d to %d", seed, seeds[0], seeds[-1])
            summaries.append(train(_with_seed(config, seed, folder)))
    except BaseException:
        if folder is not None and not any(folder.glob("seed*")):
            _remove_unbegun(folder)
        raise
    return {"run": config.run, "seeds": list(seeds), "runs": summaries}


def _remove_unbegun(folder: Path) -> None:
    """Removes what a refused first run left, so that the corrected command does not find runs there."""
    (folder / RUN_CONFIG).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _refuse_other_runs(folder: Path, resume: bool) -> None:
    if any((folder / record).exists() for record in (RUN_RECORD, GROUP_RECORD)):
        raise UsageError(f"{folder} already holds a run of one seed; pass another --run for several seeds")
    if not resume and (folder / RUN_CONFIG).exists():
        raise UsageError(f"{folder} already holds runs; pass --resume to continue them, or another --run")


def _with_seed(
    config: TrainConfig | ManyHeadsConfig, seed: int, folder: Path | None
) -> TrainConfig | ManyHeadsConfig:
    run = None if folder is None else folder / f"seed{seed}"
    named = None if run is None else str(run)
    if isinstance(config, ManyHeadsConfig):
        heads = {name: dataclasses.replace(head, seed=seed, seeds=1) for name, head in config.heads.items()}
        return dataclasses.replace(config, run=named, heads=heads)
    begun = run is not None and (run / RUN_RECORD).is_file()
    return dataclasses.replace(config, seed=seed, seeds=1, run=named, resume=config.resume and begun)
