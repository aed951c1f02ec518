"""Loggers of a run: metrics.csv always, TensorBoard and Weights & Biases through Lightning's own classes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml
from lightning.pytorch.loggers import Logger

from pipelines.config import TrainConfig, config_yaml
from pipelines.errors import UsageError
from pipelines.runs.metrics_file import MetricsFile
from pipelines.runs.run_folder import HPARAMS, METRICS
from pipelines.runs.settings_history import flat_settings

_WANDB_ID = "id"


def make_loggers(
    config: TrainConfig, folder: Path, resumed_step: int, check: Callable[[], None]
) -> list[Logger]:
    """The loggers of a run, with its settings logged.

    Args:
        check: as of `MetricsFile`.

    Raises UsageError, naming the extra, where the package of one is missing, or where Weights & Biases
    cannot begin.
    """
    loggers: list[Logger] = [MetricsFile(folder / METRICS, resumed_step, check)]
    settings = dict(flat_settings(yaml.safe_load(config_yaml(config))))
    (folder / HPARAMS).write_text(yaml.safe_dump(settings, sort_keys=False))
    for name in config.logger:
        try:
            made = _MAKERS[name](folder)
            made.log_hyperparams(settings)
        except ModuleNotFoundError as error:
            raise UsageError(f"--logger {name} needs the extra: pip install -e '.[{name}]'") from error
        loggers.append(made)
    return loggers


def close_loggers(loggers: Sequence[Logger]) -> None:
    """Ends what Lightning leaves open: a run of Weights & Biases, which another run in this process would
    continue."""
    for each in loggers:
        finish = getattr(getattr(each, "experiment", None), "finish", None)
        if finish is not None:
            finish()


def _tensorboard(folder: Path) -> Logger:
    from lightning.pytorch.loggers import TensorBoardLogger  # late: its package is an extra

    return TensorBoardLogger(folder, name="tensorboard", version="")


def _wandb(folder: Path) -> Logger:
    # Late: an extra.
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    # Lightning's class asks for it by itself, but then not whether the run is written offline.
    offline = os.environ.get("WANDB_MODE", "online") in ("offline", "dryrun")
    try:
        made = WandbLogger(
            name=folder.name,
            project=os.environ.get("WANDB_PROJECT", "permafrost"),
            save_dir=folder,
            id=_wandb_id(folder),
            resume="allow",
            offline=offline,
        )
        assert made.experiment is not None  # begins the run
    except wandb.errors.Error as error:
        raise UsageError(
            f"--logger wandb: {str(error).splitlines()[0]}; log in with `wandb login`, or set "
            "WANDB_MODE=offline and `wandb sync` later"
        ) from error
    return made


def _wandb_id(folder: Path) -> str:
    """The id under which Weights & Biases knows the run; a resumed run keeps it."""
    path = folder / "wandb" / _WANDB_ID
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12])
    return path.read_text().strip()


_MAKERS: Mapping[str, Callable[[Path], Logger]] = {"tensorboard": _tensorboard, "wandb": _wandb}
