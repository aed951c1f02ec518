"""What happens beside the steps of a run: log, validation, checkpoints."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from pipelines.module import HeadModule
from pipelines.runs import checkpoint_path

logger = logging.getLogger(__name__)


class StepLog(Callback):
    """Logs every so many steps, shows progress, and stops a run whose loss is no number."""

    def __init__(self, *, log_every: int, max_steps: int, batch_size: int) -> None:
        self._log_every, self._max_steps, self._batch_size = log_every, max_steps, batch_size
        self._bar: tqdm[None] | None = None
        self._since, self._steps_since = time.perf_counter(), 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if sys.stderr.isatty():
            self._bar = tqdm(total=self._max_steps, initial=trainer.global_step, unit="step")
        self._since, self._steps_since = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, HeadModule)
        step = trainer.global_step
        if self._bar is not None:
            self._bar.update()
        is_logged = is_due(step, self._log_every, self._max_steps)
        if is_logged or pl_module.device.type == "cpu":  # a GPU would have to be waited for
            pl_module.refuse_divergence()
        if is_logged:
            self._log(trainer, pl_module, step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def _log(self, trainer: Trainer, module: HeadModule, step: int) -> None:
        losses = {name: float(value) for name, value in module.losses.items()}
        rate = self._rows_per_s(step)
        log_everywhere(trainer, {"lr": module.rate_of(step - 1), **losses, "rows_per_s": rate}, step)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{losses['loss']:.4f}")
            return
        left_s = (self._max_steps - step) * self._batch_size / rate
        logger.info(
            "step %d/%d loss %.4f lr %.3g, %.1f rows/s, %d:%02d left",
            step, self._max_steps, losses["loss"], module.rate_of(step - 1), rate, *divmod(int(left_s), 60),
        )  # fmt: skip

    def _rows_per_s(self, step: int) -> float:
        now = time.perf_counter()
        rate = (step - self._steps_since) * self._batch_size / (now - self._since)
        self._since, self._steps_since = now, step
        return rate


class Validation(Callback):
    """Measures the head on a test store every so many steps."""

    def __init__(
        self, measure: Callable[[HeadModule], Mapping[str, float]], *, every: int, max_steps: int
    ) -> None:
        self._measure, self._every, self._max_steps = measure, every, max_steps
        self.last: Mapping[str, float] = {}
        """The figures of the last validation."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, HeadModule)
        if not is_due(trainer.global_step, self._every, self._max_steps):
            return
        pl_module.eval()
        self.last = self._measure(pl_module)
        pl_module.train()
        log_everywhere(trainer, self.last, trainer.global_step)
        shown = " ".join(f"{name} {100 * value:.2f}" for name, value in self.last.items())
        logger.info("step %d/%d %s", trainer.global_step, self._max_steps, shown)


class Checkpoints(Callback):
    """Writes the run's state every so many steps and after the last, whole or not at all."""

    def __init__(self, folder: Path, *, every: int, max_steps: int) -> None:
        self._folder, self._every, self._max_steps = folder, every, max_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, HeadModule)
        if not is_due(trainer.global_step, self._every, self._max_steps):
            return
        pl_module.refuse_divergence()
        path = checkpoint_path(self._folder, trainer.global_step)
        partial = path.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)


def is_due(step: int, every: int, max_steps: int) -> bool:
    """Whether something done every `every` steps (0: only at the end) is done after step `step`."""
    return step == max_steps or (every > 0 and step % every == 0)


def log_everywhere(trainer: Trainer, metrics: Mapping[str, float], step: int) -> None:
    """One line in each of the run's logs."""
    for log in trainer.loggers:
        log.log_metrics(dict(metrics), step)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
