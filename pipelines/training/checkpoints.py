"""Checkpoints of a training run: the last ones, and the weights with the best validation score."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import CheckpointIO

from pipelines.runs import run_folder as runs
from pipelines.runs.checkpoint_files import BestScore, read_best, remove_checkpoint, write_best
from pipelines.runs.load_checkpoint import WEIGHTS, checkpoint_bytes, load_checkpoint, save_checkpoint
from pipelines.tasks import task_info
from pipelines.training.callbacks import is_due
from pipelines.training.module import HeadModule
from pipelines.training.validation import Validation

logger = logging.getLogger(__name__)


class WholeCheckpoints(CheckpointIO):
    """In place of Lightning's own, which writes through the temporary folder and compares no digest."""

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        """Args:
        check: raises where this process may not write the run any more.
        """
        self._check = check

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        self._check()
        save_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        remove_checkpoint(Path(path))


class Checkpoints(Callback):
    """Writes the run's state every so many steps and after the last, whole or not at all.

    Args:
        folder: of the run.
        every: steps.
        max_steps: of the run.
        keep: how many stay, the last ones; 0 for all.
    """

    def __init__(self, folder: Path, *, every: int, max_steps: int, keep: int) -> None:
        self._folder, self._every, self._max_steps, self._keep = folder, every, max_steps, keep

    def follows(self, step: int) -> bool:
        """Whether one is written after step `step`."""
        return is_due(step, self._every, self._max_steps)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, HeadModule)
        if not self.follows(trainer.global_step):
            return
        pl_module.refuse_divergence()
        # By all ranks; rank 0 writes, by WholeCheckpoints.
        trainer.save_checkpoint(runs.checkpoint_path(self._folder, trainer.global_step))
        if not trainer.is_global_zero:
            return
        # Only now: at every moment there is a whole one.
        for old in list(runs.checkpoints(self._folder).values())[: -self._keep] if self._keep else []:
            remove_checkpoint(old)


class BestWeights(Callback):
    """Keeps the weights with the best validation score, on rank 0. Stands behind the validation."""

    def __init__(
        self, folder: Path, validation: Validation, check: Callable[[], None] = lambda: None
    ) -> None:
        self._folder, self._validation, self._check = folder, validation, check

    def follows(self, step: int) -> bool:
        """Whether they may be written after step `step`."""
        return self._validation.follows(step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, HeadModule)
        if not (trainer.is_global_zero and self.follows(trainer.global_step)):
            return
        info = task_info(pl_module.head.task)
        score = info.score(info.main_score)
        value = self._validation.last.get(score.name)
        before = read_best(self._folder)
        if value is None or (before is not None and not score.is_better(value, before.value)):
            return
        content = {WEIGHTS: pl_module.state_dict(), "global_step": trainer.global_step}
        best = BestScore(step=trainer.global_step, score=score.name, value=value)
        self._check()
        write_best(self._folder, best, checkpoint_bytes(content))
        logger.info("best %s so far: %s, kept as checkpoint best", score.name, score.shown(value))
