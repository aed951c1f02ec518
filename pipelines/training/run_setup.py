"""One head's run, ready to be trained: its module, its folder and its validation."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.config import TrainConfig
from pipelines.feed.datamodule import TrainingData
from pipelines.feed.ranks import Ranks, from_first_rank
from pipelines.runs import run_folder as runs
from pipelines.runs.run_lock import RunLock
from pipelines.training.module import HeadModule
from pipelines.training.run_report import log_run, report_run
from pipelines.training.validation import Validation, open_validation
from pipelines.training.write_run import OpenedRun, open_run_folder, record_of, write_run_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadRun:
    """A run whose folder is written, ready for training."""

    config: TrainConfig
    """With as many steps as it has, and the chosen stores."""
    module: HeadModule
    record: runs.RunRecord
    folder: Path
    checkpoint: Path | None
    """The last one of a run that is resumed."""
    validation: Validation | None
    lock: RunLock | None = None
    """Held while the run is written; on rank 0 alone."""
    name: str = ""
    """Where several heads are trained side by side."""

    def check(self) -> None:
        """Raises RunLockLost where another process has taken the run over."""
        if self.lock is not None:
            self.lock.check()

    @property
    def first_step(self) -> int:
        """The steps it has done."""
        return runs.step_of(self.checkpoint) if self.checkpoint else 0


def prepare(
    module: HeadModule,
    data: TrainingData,
    device: torch.device,
    ranks: Ranks,
    opened: ExitStack,
    name: str = "",
) -> HeadRun:
    """Makes or finds the run's folder, and records what the run is made from.

    Args:
        module: the head, with the configuration of its run.
        data: where its batches come from.
        device: to measure on.
        ranks: rank 0 alone writes and measures.
        opened: keeps the test store open.
        name: of the head among several.
    """
    config = module.config
    record = record_of(config, data, module)
    mine: list[tuple[OpenedRun, Validation | None]] = []  # of the first rank, which alone has the lock

    def opened_here() -> tuple[Path, Path | None]:
        run = open_run_folder(config, data, opened)
        mine.append((run, open_validation(config, record, device, opened, name)))
        write_run_folder(run, config, data, record)
        return run.folder, run.checkpoint

    folder, checkpoint = from_first_rank(opened_here)
    run, validation = mine[0] if mine else (None, None)
    log_run(config, data, folder, is_validated=validation is not None)
    return HeadRun(
        config=config,
        module=module,
        record=record,
        folder=folder,
        checkpoint=checkpoint,
        validation=validation,
        lock=run.lock if run else None,
        name=name,
    )


def report(run: HeadRun, seconds: float) -> dict[str, Any]:
    """Draws the run's curves and prints its last line. Returns the summary."""
    run.check()
    scores = run.validation.last if run.validation else {}
    if run.validation is None:
        _print_missing_test_store(run.record)
    return report_run(run.config, run.folder, run.record.task, scores, seconds)


def _print_missing_test_store(record: runs.RunRecord) -> None:
    """The command that makes the store `evaluate` will need; nothing where the data has no test split."""
    # Late: it loads the data sets, which training from a store does not need.
    from pipelines.catalog.extract_line import extract_line

    with suppress(ValueError):
        print(f"no test store fits; to make one: {extract_line(record)}")
