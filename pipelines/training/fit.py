"""Lightning's trainer for one run, on one device or on the ranks started by torchrun."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy

from pipelines.config import TrainConfig
from pipelines.errors import Interrupted
from pipelines.feed.datamodule import TrainingData
from pipelines.feed.ranks import Ranks, ranks_of
from pipelines.machine.devices import uses_bf16
from pipelines.runs import run_folder as runs
from pipelines.training.build_module import counted_costs
from pipelines.training.callbacks import StepLog
from pipelines.training.checkpoints import BestWeights, Checkpoints, WholeCheckpoints
from pipelines.training.compile_necks import compile_necks, compiles_necks
from pipelines.training.cost_log import CostLog
from pipelines.training.loggers import close_loggers, make_loggers
from pipelines.training.module import HeadModule
from pipelines.training.run_length import share_of
from pipelines.training.validation import Validation

logger = logging.getLogger(__name__)


def fit(
    config: TrainConfig,
    module: HeadModule,
    data: TrainingData,
    folder: Path,
    device: torch.device,
    *,
    validation: Validation | None = None,
    checkpoint: Path | None = None,
    name: str = "",
    check: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Runs the remaining steps. Returns the seconds they took.

    Args:
        config: of the run.
        module: the head.
        data: where its batches come from.
        folder: of the run.
        device: to train on; of this rank.
        validation: None for none.
        checkpoint: to resume from; None to start.
        name: of the head, where several train side by side.
        check: raises where this process may not write the run any more; asked before each write.
        clock: seconds of this head's own; those of others, where several train side by side, left out.

    Raises WorkFailed where the loss diverges, whatever `data` raises, Interrupted for Ctrl-C.
    """
    began = clock()
    resumed_step = runs.step_of(checkpoint) if checkpoint else 0
    if resumed_step >= config.max_steps:
        logger.info("run %s is complete after %d steps: nothing to do", folder, resumed_step)
        return 0.0
    if compiles_necks(config.compile, device):
        compile_necks(module.head)
    ranks = ranks_of(os.environ)
    quieten_lightning()
    trainer = Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=_devices(device, ranks),
        num_nodes=ranks.machines,
        strategy=_strategy(device, ranks),
        # Fewer images on each rank than the recipe means: batch norms see all of them (CUDA has the layer).
        sync_batchnorm=ranks.world > 1 and device.type == "cuda",
        precision="bf16-mixed" if uses_bf16(config.precision, device) else "32-true",
        max_steps=config.max_steps,
        max_epochs=-1,
        gradient_clip_val=config.optimizer.clip_norm,
        limit_val_batches=0,  # Validation measures, at steps of its own
        log_every_n_steps=0,  # StepLog and Validation write the logs, not the module's own `log`
        logger=make_loggers(config, folder, resumed_step, check) if ranks.is_first else False,
        callbacks=_callbacks(config, data, module, folder, validation, resumed_step, name, check, clock),
        benchmark=device.type == "cuda",  # one input size: the fastest kernels are worth looking for
        enable_checkpointing=False,
        plugins=[WholeCheckpoints(check)],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stopped:  # Lightning's answer to an interrupt
        raise Interrupted(runs.resume_command(folder)) from stopped
    finally:
        close_loggers(trainer.loggers)
    return clock() - began


def _devices(device: torch.device, ranks: Ranks) -> int | list[int]:
    if ranks.world > 1 or device.type != "cuda":
        return ranks.local_world
    return [device.index]


def _strategy(device: torch.device, ranks: Ranks) -> str | Strategy:
    if ranks.world == 1:
        return "auto"
    return DDPStrategy(
        process_group_backend="nccl" if device.type == "cuda" else "gloo",
        # A step may leave parameters out on one rank, as a mask branch without an instance.
        find_unused_parameters=True,
        # Running means of batch norms are rank 0's, which writes them.
        broadcast_buffers=False,
    )


def _callbacks(
    config: TrainConfig,
    data: TrainingData,
    module: HeadModule,
    folder: Path,
    validation: Validation | None,
    resumed_step: int,
    name: str,
    check: Callable[[], None],
    clock: Callable[[], float],
) -> list[Callback]:
    every = config.checkpoint_every or share_of(config.max_steps)
    saved = Checkpoints(folder, every=every, max_steps=config.max_steps, keep=config.keep_checkpoints)
    pausing: list[Validation | BestWeights | Checkpoints] = [saved]
    if validation is not None:
        pausing = [validation, BestWeights(folder, validation, check), saved]
    costs = CostLog(
        folder,
        batch_size=config.batch_size,
        counted=lambda: counted_costs(config, data, module.head.levels),
        pauses=lambda step: any(callback.follows(step) for callback in pausing),
        resumed=resumed_step > 0,
        check=check,
        clock=clock,
    )
    return [
        StepLog(
            log_every=config.log_every,
            max_steps=config.max_steps,
            batch_size=config.batch_size,
            reading=lambda: data.reading,
            name=name,
        ),
        costs,
        *pausing,
        costs.after,
    ]


def quieten_lightning() -> None:
    """Hides Lightning's advertisements and its warnings about what is intended here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        r".*isinstance\(treespec, LeafSpec\).*",  # torch's, about Lightning's own code
        r".*find_unused_parameters=True.*",
    ):
        warnings.filterwarnings("ignore", message=message)
