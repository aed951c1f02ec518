"""Time and memory of a training, measured while it runs and written to costs.json."""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from pipelines.json_output import write_json
from pipelines.runs.costs import COSTS, RunCosts, read_costs

WARMUP_STEPS = 10
"""First steps of a session that are not timed where there are more: kernels are chosen, memory is found."""


class CostLog(Callback):
    """Measures a run and writes costs.json whenever the training pauses for a validation or a checkpoint.

    Stands before the callbacks that pause it; its `after` stands behind them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        batch_size: int,
        counted: Callable[[], Mapping[str, Any]] = dict,
        pauses: Callable[[int], bool],
        resumed: bool,
        check: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Args:
        counted: further fields of RunCosts, asked for once.
        pauses: whether validation or checkpoint follow a step, whose work on the device is waited for then.
        clock: seconds of this run; those of others side by side with it left out.
        """
        self._folder, self._batch_size, self._pauses, self._clock = folder, batch_size, pauses, clock
        self._check, self._count = check, cache(counted)
        self._before = read_costs(folder) if resumed else None
        self._timed_steps, self._timed_s = 0, 0.0
        self._began = self._mark = 0.0
        self._steps, self._steps_at_mark = 0, 0
        self.after = _AfterPauses(self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = self._mark = self._clock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps += 1
        if self._pauses(trainer.global_step):
            _wait_for(pl_module.device)
            self._timed_s += self._clock() - self._mark
            self._timed_steps += self._steps - self._steps_at_mark
        elif self._steps == WARMUP_STEPS and not self._timed_steps:
            _wait_for(pl_module.device)
            self._restart_clock()

    def go_on(self, trainer: Trainer, module: LightningModule) -> None:
        """The pause is over."""
        if self._pauses(trainer.global_step):
            if trainer.is_global_zero:
                self._check()
                write_json(self._folder / COSTS, dataclasses.asdict(self._costs(module)))
            self._restart_clock()

    def _restart_clock(self) -> None:
        self._mark, self._steps_at_mark = self._clock(), self._steps

    def _costs(self, module: LightningModule) -> RunCosts:
        device, before = module.device, self._before
        on_gpu = device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(device) if on_gpu else _peak_resident_bytes()
        return RunCosts(
            parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
            batch_size=self._batch_size,
            timed_steps=self._timed_steps + (before.timed_steps if before else 0),
            timed_seconds=self._timed_s + (before.timed_seconds if before else 0.0),
            seconds=self._clock() - self._began + (before.seconds if before else 0.0),
            peak_bytes=max(peak, before.peak_bytes if before else 0),
            peak_of="device" if on_gpu else "process",
            device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
            **self._count(),
        )


class _AfterPauses(Callback):
    def __init__(self, log: CostLog) -> None:
        self._log = log

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._log.go_on(trainer, pl_module)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
