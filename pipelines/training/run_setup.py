"""One head's run, ready to be trained: its module, its folder and what stands beside its steps."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch

from heads import build_head, head_names
from heads.errors import HeadError
from pipelines.catalog.choose_store import fitting_test_stores
from pipelines.catalog.known_weights import first_known_weights
from pipelines.config import TrainConfig
from pipelines.errors import UsageError
from pipelines.evaluation.open_test_store import open_test_store
from pipelines.feed.datamodule import TrainingData
from pipelines.feed.ranks import Ranks, from_first_rank
from pipelines.machine.devices import uses_bf16
from pipelines.pictures.curves import draw_curves
from pipelines.reporting.paper_results import view_differences
from pipelines.runs import run_folder as runs
from pipelines.runs.metrics_csv import read_metrics
from pipelines.tasks import task_info
from pipelines.tasks.contract import percent
from pipelines.training.module import HeadModule
from pipelines.training.schedules import warmup_steps
from pipelines.training.validation import StoreMeasure, Validation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadRun:
    """A run that was written down and can be trained."""

    config: TrainConfig
    """With as many steps as it has, and the stores that were chosen."""
    module: HeadModule
    record: runs.RunRecord
    folder: Path
    checkpoint: Path | None
    """The last one of a run that is resumed."""
    validation: Validation | None
    name: str = ""
    """Where several heads are trained side by side."""

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
    """Makes or finds the run's folder, and writes down what the run is made from.

    Args:
        module: the head, with the configuration of its run.
        data: where its batches come from.
        device: to measure on.
        ranks: rank 0 alone writes and measures.
        opened: keeps the test store open.
        name: of the head among several.
    """
    config = module.config
    record = _record_of(config, data, module)
    folder = from_first_rank(lambda: _write_down(config, data, record))
    found = runs.checkpoints(folder) if config.resume else {}
    validation = _validation(config, record, device, opened, name) if ranks.is_first else None
    _announce(config, data, folder, validation)
    return HeadRun(
        config=config,
        module=module,
        record=record,
        folder=folder,
        checkpoint=found[max(found)] if found else None,
        validation=validation,
        name=name,
    )


def build_module(config: TrainConfig, data: TrainingData) -> HeadModule:
    """The head of a run; `data` learns which levels it reads.

    Raises UsageError where it cannot be built on the levels there are, or learns from targets that are not
    there.
    """
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
    if missing := [name for name in head.target_names if name not in data.target_names]:
        raise UsageError(
            f"head {config.head} learns from {', '.join(missing)}, which {data.describe()} does not give; "
            f"{_heads_to_take(config.head, data)}"
        )
    data.levels = head.levels
    return HeadModule(head, config)


def _heads_to_take(instead_of: str, data: TrainingData) -> str:
    """Advice: the heads that the data can teach, the one whose name is most alike first."""
    task, num_classes = data.identity["dataset"]["task"], data.identity["dataset"]["num_classes"]
    names = []
    for name in head_names(task):
        try:
            with torch.device("meta"):  # without memory or first weights
                head = build_head(name, task, data.pyramid, num_classes)
        except HeadError:  # of levels that are not there
            continue
        if set(head.target_names) <= set(data.target_names):
            names.append(name)
    if not names:
        return "there is no head that learns from what it gives; extract a training split"
    best, *others = sorted(names, key=lambda name: -SequenceMatcher(a=instead_of, b=name).ratio())
    return f"take {best}, or another of {', '.join(sorted(others))}"


def report(run: HeadRun, seconds: float) -> dict[str, Any]:
    """Draws the run's curves and prints its last line. Returns the summary."""
    draw_curves(run.folder / runs.METRICS, run.folder / runs.CURVES, task_info(run.record.task).main_score)
    losses = [row["loss"] for row in read_metrics(run.folder / runs.METRICS) if "loss" in row]
    figures = run.validation.last if run.validation else {}
    loss = float(losses[-1])
    scores = "".join(f", {name} {percent(value)}" for name, value in list(figures.items())[:1])
    print(f"{run.folder}: {run.config.max_steps} steps, loss {loss:.4f}{scores}")
    return {
        "run": str(run.folder),
        "steps": run.config.max_steps,
        "loss": loss,
        **figures,
        "seconds": round(seconds, 3),
    }


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


def _known_weights(config: TrainConfig, data: TrainingData) -> str | None:
    """What --weights was when the store was extracted, if that was noted beside it."""
    digest = data.identity["backbone"]["weights_sha256"]
    folders = [Path(config.stores), *(Path(store.path).parent for store in data.stores)]
    return first_known_weights(folders, digest)


def _write_down(config: TrainConfig, data: TrainingData, record: runs.RunRecord) -> Path:
    """Makes the folder of a new run, or checks that of a run that is resumed."""
    if config.resume:
        folder = Path(config.run or "")
        runs.check_resumable(runs.read_run(folder), record)
    else:
        folder = runs.new_run_folder(config.run, data.name, config.head)
    runs.write_run(folder, _with_its_stores(config, data), record)
    return folder


def _with_its_stores(config: TrainConfig, data: TrainingData) -> TrainConfig:
    """The configuration with the stores that were chosen, so that a resumed run finds no others."""
    return config if config.online else dataclasses.replace(config, store=tuple(s.path for s in data.stores))


def _validation(
    config: TrainConfig, record: runs.RunRecord, device: torch.device, opened: ExitStack, name: str
) -> Validation | None:
    """Measures on the named test store, or on the one that fits if there is exactly one."""
    if config.val_store is None:
        fitting = fitting_test_stores(record, Path(record.stores_folder), pixels=config.pixels)
        found = [store.path for store in fitting]
        if len(found) != 1:
            return None
    else:
        found = [Path(config.val_store)]
    store, shallow = open_test_store(
        found[0],
        record,
        opened,
        device=device,
        threads=config.threads,
        pixels=config.pixels,
        data=config.data,
        weights=record.weights,
    )
    every = share_of(config.max_steps) if config.val_every is None else config.val_every
    measure = StoreMeasure(store, uses_bf16(config.precision, device), shallow)
    return Validation(measure, every=every, max_steps=config.max_steps, name=name)


def share_of(max_steps: int) -> int:
    """A tenth of a run: how often it is validated and saved where nobody said."""
    return max(1, max_steps // 10)


def _announce(config: TrainConfig, data: TrainingData, folder: Path, validation: Validation | None) -> None:
    logger.info("run %s: head %s on %s", folder, config.head, data.describe())
    if config.epochs is not None:
        logger.info(
            "%g epochs of %d x %d records: %d steps of %d",
            *(config.epochs, config.repeat, data.records, config.max_steps, config.batch_size),
        )
    if differences := list(view_differences(data.identity, config.head)):
        logger.info("views that differ from the paper's (in brackets): %s", "; ".join(differences))
    warmup, recipe = warmup_steps(config.schedule, config.max_steps), config.schedule
    if recipe.warmup_share is None and warmup != recipe.warmup_steps:
        logger.info("warm-up cut from %d steps to %d, a tenth of the run", recipe.warmup_steps, warmup)
    if validation is None:
        logger.info("not one complete test store in %s: no score is measured while training", config.stores)
