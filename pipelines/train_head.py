"""`train-head`: a head, trained from stores or, with --online, on the live backbone."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from heads import build_head
from pipelines import runs
from pipelines.choose_store import find_training_stores, fitting_test_stores
from pipelines.config import TrainConfig
from pipelines.curves import draw_curves
from pipelines.datamodule import StoreData, TrainingData
from pipelines.devices import choose_device, uses_bf16
from pipelines.exit_codes import Interrupted, UsageError
from pipelines.joined_stores import JoinedStores
from pipelines.known_weights import known_weights
from pipelines.metrics_file import MetricsFile, read_metrics
from pipelines.module import HeadModule
from pipelines.paper_views import view_differences
from pipelines.run_length import with_steps
from pipelines.schedules import warmup_steps
from pipelines.tasks import task_of
from pipelines.training_callbacks import Checkpoints, StepLog, Validation
from pipelines.validation import StoreMeasure
from stores.reader import open_store

logger = logging.getLogger(__name__)


def run(config: TrainConfig) -> dict[str, Any]:
    """Trains or resumes a run. Returns its folder, its last figures and its speed.

    Raises UsageError where no store fits or it lacks a level the head needs, IdentityError where a resumed
    run's stores are not its own, WorkFailed where the loss diverges.
    """
    device = choose_device(config.device)
    with ExitStack() as opened:
        data = _open_data(config, device)
        opened.callback(data.close)
        config = with_steps(config, data.records)
        module = build_module(config, data)
        record = _record_of(config, data, module)
        folder, checkpoint = _folder_and_checkpoint(config, data, record)
        runs.write_run(folder, _with_its_stores(config, data), record)
        validation = _validation(config, record, device, opened)
        _announce(config, data, folder, validation)
        seconds = fit(config, module, data, folder, device, validation, checkpoint)
    draw_curves(folder / runs.METRICS, folder / runs.CURVES, task_of(record.task).main_score)
    return _report(config, folder, validation, seconds)


def _open_data(config: TrainConfig, device: torch.device) -> TrainingData:
    if config.online:
        from pipelines.online import (
            OnlineData,
        )  # needs the backbone's packages; training from a store must not

        return OnlineData.open(config, device)
    paths = find_training_stores(config)
    return StoreData(JoinedStores.open(paths, verify=config.verify, threads=config.threads), config)


def build_module(config: TrainConfig, data: TrainingData) -> HeadModule:
    pyramid = data.pyramid.select(config.levels) if config.levels else data.pyramid
    dataset = data.identity["dataset"]
    try:
        head = build_head(
            config.head,
            dataset["task"],
            pyramid,
            dataset["num_classes"],
            seed=config.seed,
            **config.head_settings,
        )
    except ValueError as error:
        raise UsageError(f"{error} ({data.describe()})") from error
    data.levels = head.levels
    return HeadModule(head, config)


def _record_of(config: TrainConfig, data: TrainingData, module: HeadModule) -> runs.RunRecord:
    return runs.RunRecord(
        head=config.head,
        head_settings=dict(config.head_settings),
        pyramid=data.pyramid.select(module.head.levels).to_json(),
        identity=dict(data.identity),
        stores=data.stores,
        stores_folder=str(Path(config.stores).resolve()),
        weights=config.weights or _known_weights(config, data),
        data=str(Path(config.data).resolve()) if config.data else None,
        verify=config.verify,
        versions=runs.package_versions(),
    )


def _with_its_stores(config: TrainConfig, data: TrainingData) -> TrainConfig:
    """The configuration with the stores that were chosen, so that a resumed run finds no others."""
    return config if config.online else dataclasses.replace(config, store=tuple(s.path for s in data.stores))


def _known_weights(config: TrainConfig, data: TrainingData) -> str | None:
    """What --weights was when the store was extracted, if that was noted beside it."""
    digest = data.identity["backbone"]["weights_sha256"]
    folders = [Path(config.stores), *(Path(store.path).parent for store in data.stores)]
    return next(filter(None, (known_weights(folder, digest) for folder in folders)), None)


def _folder_and_checkpoint(
    config: TrainConfig, data: TrainingData, record: runs.RunRecord
) -> tuple[Path, Path | None]:
    """The run's folder and, for a run that is resumed, its last checkpoint: None if it was killed before
    any."""
    if not config.resume:
        return runs.new_run_folder(config.run, data.name, config.head), None
    folder = Path(config.run or "")
    runs.check_resumable(runs.read_run(folder), record)
    found = runs.checkpoints(folder)
    return folder, found[max(found)] if found else None


def _validation(
    config: TrainConfig, record: runs.RunRecord, device: torch.device, opened: ExitStack
) -> Validation | None:
    """Measures on the named test store, or on the one that fits if there is exactly one."""
    if config.val_store is None:
        found = [store.path for store in fitting_test_stores(record, Path(record.stores_folder))]
        if len(found) != 1:
            return None
    else:
        found = [Path(config.val_store)]
    store = opened.enter_context(open_store(found[0], threads=config.threads))
    record.check_same_source(store.identity, str(store.path))
    every = _share_of(config.max_steps) if config.val_every is None else config.val_every
    measure = StoreMeasure(store, uses_bf16(config.precision, device))
    return Validation(measure, every=every, max_steps=config.max_steps)


def _share_of(max_steps: int) -> int:
    """A tenth of a run: how often it is validated and saved where nobody said."""
    return max(1, max_steps // 10)


def _announce(config: TrainConfig, data: TrainingData, folder: Path, validation: Validation | None) -> None:
    logger.info("run %s: head %s on %s", folder, config.head, data.describe())
    if config.epochs is not None:
        logger.info(
            "%g epochs of %d x %d records: %d steps of %d",
            *(config.epochs, config.repeat, data.records, config.max_steps, config.batch_size),
        )
    if differences := list(view_differences(data.identity)):
        logger.info("views that differ from the paper's (in brackets): %s", "; ".join(differences))
    warmup, recipe = warmup_steps(config.schedule, config.max_steps), config.schedule
    if recipe.warmup_share is None and warmup != recipe.warmup_steps:
        logger.info("warm-up cut from %d steps to %d, a tenth of the run", recipe.warmup_steps, warmup)
    if validation is None:
        logger.info("not one complete test store in %s: no score is measured while training", config.stores)


def fit(
    config: TrainConfig,
    module: HeadModule,
    data: TrainingData,
    folder: Path,
    device: torch.device,
    validation: Validation | None,
    checkpoint: Path | None,
) -> float:
    """Runs the steps that are left. Returns the seconds they took."""
    began = time.perf_counter()
    resumed_step = runs.step_of(checkpoint) if checkpoint else 0
    if resumed_step >= config.max_steps:
        logger.info("run %s is complete: its %d steps are done", folder, resumed_step)
        return 0.0
    every = config.checkpoint_every or _share_of(config.max_steps)
    callbacks: list[Callback] = [
        StepLog(log_every=config.log_every, max_steps=config.max_steps, batch_size=config.batch_size),
        *([validation] if validation else []),
        Checkpoints(folder, every=every, max_steps=config.max_steps),
    ]
    _quieten_lightning()
    trainer = Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index] if device.type == "cuda" else 1,
        precision="bf16-mixed" if uses_bf16(config.precision, device) else "32-true",
        max_steps=config.max_steps,
        max_epochs=-1,
        gradient_clip_val=config.optimizer.clip_norm,
        logger=_loggers(config, folder, resumed_step),
        callbacks=callbacks,
        benchmark=device.type == "cuda",  # one input size: the fastest kernels are worth looking for
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stopped:  # Lightning's answer to an interrupt
        raise Interrupted(
            f"python -m pipelines train-head --resume --run {shlex.quote(str(folder))}"
        ) from stopped
    return time.perf_counter() - began


def _quieten_lightning() -> None:
    """Its advertisements, and a warning of torch about Lightning's own code, are not of this run."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")


def _loggers(config: TrainConfig, folder: Path, resumed_step: int) -> list[Logger]:
    loggers: list[Logger] = [MetricsFile(folder / runs.METRICS, resumed_step)]
    if config.tensorboard:
        from lightning.pytorch.loggers import TensorBoardLogger  # its package is an extra

        try:
            loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
        except ModuleNotFoundError as error:
            raise UsageError("--tensorboard needs the extra: pip install -e '.[tensorboard]'") from error
    return loggers


def _report(
    config: TrainConfig, folder: Path, validation: Validation | None, seconds: float
) -> dict[str, Any]:
    """Prints the run's last line. Returns the summary."""
    losses = [row["loss"] for row in read_metrics(folder / runs.METRICS) if "loss" in row]
    figures = validation.last if validation else {}
    loss = float(losses[-1])
    scores = "".join(f", {name} {100 * value:.2f}" for name, value in list(figures.items())[:1])
    print(f"{folder}: {config.max_steps} steps, loss {loss:.4f}{scores}")
    return {
        "run": str(folder),
        "steps": config.max_steps,
        "loss": loss,
        **figures,
        "seconds": round(seconds, 3),
    }
