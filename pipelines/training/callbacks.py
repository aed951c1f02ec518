"""Callbacks of a training run: the step log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from pipelines.cli.progress_bar import BAR, QUIET_S, progress_text
from pipelines.feed.pace import PaceMeter, Reading
from pipelines.training.module import HeadModule
from pipelines.units import duration

logger = logging.getLogger(__name__)


class StepLog(Callback):
    """Logs every `log_every` steps, shows progress, and stops a run whose loss is not finite.

    On a terminal progress is a bar; elsewhere it is a line with the loss every `log_every` steps, and one
    without it where steps are so slow that none has appeared for `QUIET_S`.

    Args:
        log_every: steps.
        max_steps: of the run.
        batch_size: rows of a step.
        reading: returns what the feed has read so far.
        name: of the head, where several are trained side by side; they have no progress bar.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        log_every: int,
        max_steps: int,
        batch_size: int,
        reading: Callable[[], Reading] = Reading,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log_every, self._max_steps, self._batch_size = log_every, max_steps, batch_size
        self._reading, self._name = reading, name
        self._bar: tqdm[None] | None = None
        self._meter = PaceMeter(reading)
        self._steps_since = 0
        self._clock = clock
        self._began, self._is_first = 0.0, True
        self._line_s, self._line_step = 0.0, 0
        self._of = f"{name}: " if name else ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if sys.stderr.isatty() and not self._name and trainer.is_global_zero:
            first = trainer.global_step
            self._bar = tqdm(total=self._max_steps, initial=first, bar_format=BAR, file=sys.stderr)
        self._meter, self._steps_since = PaceMeter(self._reading), trainer.global_step
        self._began, self._is_first = self._clock(), True
        if trainer.global_step:
            logger.info("%scontinues after step %d of %d", *(self._of, trainer.global_step, self._max_steps))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, HeadModule)
        step = trainer.global_step
        if self._is_first:
            self._is_first = False
            self._line_s, self._line_step = self._clock(), step
            seconds = duration(self._line_s - self._began)
            logger.info("%sfirst step: step %d of %d, after %s", self._of, step, self._max_steps, seconds)
        if self._bar is not None:
            self._bar.update()
        is_logged = is_due(step, self._log_every, self._max_steps)
        if is_logged or pl_module.device.type == "cpu":  # on a GPU it would stall the host
            pl_module.refuse_divergence()
        if is_logged:
            self._log(trainer, pl_module, step)
            self._line_s, self._line_step = self._clock(), step
        elif self._bar is None and self._clock() - self._line_s >= QUIET_S:
            self._log_count(step)

    def _log_count(self, step: int) -> None:
        """A line without a loss, which a GPU would have to be waited for."""
        now_s = self._clock()
        rate = (step - self._line_step) * self._batch_size / (now_s - self._line_s)
        left = duration((self._max_steps - step) * self._batch_size / rate)
        logger.info("%sstep %d of %d, %.1f rows/s, %s left", self._of, step, self._max_steps, rate, left)
        self._line_s, self._line_step = now_s, step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def _log(self, trainer: Trainer, module: HeadModule, step: int) -> None:
        losses = module.mean_losses()
        pace = self._meter.interval()
        rate = (step - self._steps_since) * self._batch_size / pace.seconds
        self._steps_since = step
        log_everywhere(
            trainer,
            {"lr": module.rate_of(step - 1), **losses, "rows_per_s": rate, **pace.metrics()},
            step,
        )
        left_s = (self._max_steps - step) * self._batch_size / rate
        speed = progress_text(rate, "rows", left_s, pace.waits_for())
        loss = f"loss {losses['loss']:.4f}"
        if self._bar is not None:
            self._bar.set_postfix_str(f"{speed}, {loss}")
            return
        learning_rate = f"lr {module.rate_of(step - 1):.3g}"
        logger.info("%sstep %d of %d, %s; %s %s", self._of, step, self._max_steps, speed, loss, learning_rate)


def is_due(step: int, every: int, max_steps: int) -> bool:
    """Whether something done every `every` steps (0: only at the end) is done after step `step`."""
    return step == max_steps or (every > 0 and step % every == 0)


def log_everywhere(trainer: Trainer, metrics: Mapping[str, float], step: int) -> None:
    """One line in each of the run's logs."""
    for log in trainer.loggers:
        log.log_metrics(dict(metrics), step)
