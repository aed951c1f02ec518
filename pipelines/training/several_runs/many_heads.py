"""Several heads trained side by side on one stream of batches: read, copied and dequantised once.

Each head's run is the one it would have alone, in a folder of its own below the group's, for `evaluate`,
`predict` and `--resume` to find:

<group>/heads.json   which runs there are, and which were stopped, at which step and why
<group>/<name>/      a run, see pipelines/runs/run_folder.py
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.catalog.choose_store import find_training_stores
from pipelines.config import GROUP_RECORD, ManyHeadsConfig, TrainConfig
from pipelines.config.fields import one_stream_settings
from pipelines.errors import Interrupted, UsageError, WorkFailed
from pipelines.feed.datamodule import Stretch, TrainingData
from pipelines.feed.pace import Reading
from pipelines.feed.ranks import ranks_of
from pipelines.feed.store_feed import Batch
from pipelines.json_output import write_json
from pipelines.machine.malloc_arenas import share_one_arena
from pipelines.runs import run_folder as runs
from pipelines.runs.new_run import UnbegunRun
from pipelines.runs.run_lock import RunLockLost
from pipelines.tasks import task_info
from pipelines.training.build_module import build_module
from pipelines.training.fit import fit, quieten_lightning
from pipelines.training.module import HeadModule
from pipelines.training.open_data import device_of_rank, open_data
from pipelines.training.run_length import with_steps
from pipelines.training.run_setup import HeadRun, prepare, report
from pipelines.training.several_runs.take_turns import SharedBatches
from stores.small_files import read_json

logger = logging.getLogger(__name__)


def train_side_by_side(config: ManyHeadsConfig) -> dict[str, Any]:
    """Trains or resumes every head of `config`. Returns the group's folder and each run's summary.

    A head that fails is stopped and reported while the others continue.

    Raises UsageError for heads that cannot share a stream, WorkFailed at the end where heads were stopped,
    whatever the stream of batches raises, and Interrupted for Ctrl-C.
    """
    ranks = ranks_of(os.environ)
    if ranks.world > 1:
        raise UsageError("several heads train in one process; start the command without torchrun")
    configs = config.heads
    check_one_stream(configs)
    first = next(iter(configs.values()))
    device = device_of_rank(first.device, ranks)
    share_one_arena()  # before the threads that read begin, and those of the heads
    quieten_lightning()
    with ExitStack() as opened:
        data = open_data(first, device)
        opened.callback(data.close)
        modules = _build_all(config, data)  # before any folder is made
        group = _group_folder(config, data, opened)
        heads = []
        for name, module in modules.items():
            module.config = dataclasses.replace(module.config, run=str(group / name))
            heads.append(prepare(module, data, device, ranks, opened, name))
        _record(group, list(configs), {})
        outcomes = _train(heads, data, device, group)
        return _report(group, heads, outcomes)


def check_one_stream(configs: dict[str, TrainConfig]) -> None:
    """Raises UsageError, naming setting and values, where heads would not see the same batches."""
    first_name, first = next(iter(configs.items()))
    for name, other in configs.items():
        for setting in one_stream_settings(TrainConfig):
            mine, theirs = getattr(first, setting), getattr(other, setting)
            if mine != theirs:
                raise UsageError(
                    f"heads trained side by side share their batches, but {setting} is {mine!r} for "
                    f"{first_name} and {theirs!r} for {name}; use one value, or train them separately"
                )
    if first.online:
        return
    stores = {name: [str(path.resolve()) for path in find_training_stores(c)] for name, c in configs.items()}
    for name, theirs in stores.items():
        if theirs != stores[first_name]:
            raise UsageError(
                f"heads trained side by side share their stores, but {first_name} uses "
                f"{', '.join(stores[first_name])} and {name} {', '.join(theirs)}; train them separately"
            )


def _group_folder(config: ManyHeadsConfig, data: TrainingData, opened: ExitStack) -> Path:
    """Makes the folder of a new group; it is removed again where every head's run is refused."""
    if config.resume:
        return Path(config.run or "")
    folder = opened.enter_context(UnbegunRun(config.run, data.name, f"{len(config.heads)}-heads")).folder
    if (folder / GROUP_RECORD).exists():
        raise UsageError(f"{folder} already holds runs; pass --resume to continue them, or another --run")
    return folder


def _build_all(config: ManyHeadsConfig, data: TrainingData) -> dict[str, HeadModule]:
    """The heads, in order; `data` then reads every level that one of them does."""
    modules, levels = {}, set[str]()
    for name, each in config.heads.items():
        modules[name] = build_module(with_steps(each, data.records), data)
        levels.update(data.levels)
    data.levels = tuple(level for level in data.pyramid.names if level in levels)
    return modules


def _record(group: Path, names: list[str], stopped: dict[str, str]) -> None:
    """Adds to the group's record; a head once stopped is never resumed with the others."""
    path = group / GROUP_RECORD
    before: dict[str, Any] = {"heads": names, "stopped": {}}
    if path.exists():
        before = read_json(path)
    write_json(path, {"heads": before["heads"], "stopped": {**before["stopped"], **stopped}})


@dataclass(kw_only=True, slots=True)
class _Outcome:
    """Result of one head."""

    seconds: float = 0.0
    """Of its own turns."""
    failure: str | None = None


class _SeatData(TrainingData):
    """The batches of one head among several."""

    def __init__(self, data: TrainingData, shared: SharedBatches[Batch], seat: int) -> None:
        super().__init__()
        self.name, self.pyramid, self.identity = data.name, data.pyramid, data.identity
        self._data, self._shared, self._seat = data, shared, seat

    def batches(self, stretch: Stretch) -> Iterator[Batch]:
        return self._shared.batches(self._seat)

    @property
    def reading(self) -> Reading:
        return self._data.reading


def _train(
    heads: list[HeadRun], data: TrainingData, device: torch.device, group: Path
) -> dict[str, _Outcome]:
    """Runs all heads to their ends, each in a thread of its own, one at a time."""
    going = [head for head in heads if head.first_step < head.config.max_steps]
    outcomes = {head.name: _Outcome() for head in heads}
    if not going:
        return outcomes
    stretch = Stretch(
        start_step=min(head.first_step for head in going),
        stop_step=max(head.config.max_steps for head in going),
        device=device,
    )
    shared = SharedBatches(iter(data.batches(stretch)), [head.first_step for head in going])
    threads = [
        threading.Thread(
            target=_train_one,
            args=(head, _SeatData(data, shared, seat), shared, seat, device, group, outcomes[head.name]),
            name=f"head-{head.name}",
            daemon=True,
        )
        for seat, head in enumerate(going)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt as interrupt:
        shared.stop(WorkFailed("interrupted"))
        for thread in threads:
            thread.join()
        raise Interrupted(runs.resume_command(group)) from interrupt
    if shared.error is not None:
        raise shared.error
    return outcomes


def _train_one(
    head: HeadRun,
    data: _SeatData,
    shared: SharedBatches[Batch],
    seat: int,
    device: torch.device,
    group: Path,
    outcome: _Outcome,
) -> None:
    """One head, from its first turn to its last; runs in its thread."""
    shared.turns.wait(seat)
    try:
        outcome.seconds = fit(
            head.config,
            head.module,
            data,
            head.folder,
            device,
            validation=head.validation,
            checkpoint=head.checkpoint,
            name=head.name,
            check=head.check,
            clock=lambda: time.perf_counter() - shared.waited_s(seat),
        )
    except BaseException as error:  # of this head alone: the others continue
        if shared.error is None:
            step = head.module.trainer.global_step if head.module._trainer is not None else head.first_step
            outcome.failure = f"stopped at step {step}: {_in_words(error)}"
            logger.error("%s %s; the other heads continue", head.name, outcome.failure)
            if not isinstance(error, RunLockLost):  # another process trains it now
                _record(group, [], {head.name: outcome.failure})
    finally:
        _free(head, device, outcome)
        shared.leave(seat)


def _in_words(error: BaseException) -> str:
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return f"out of memory ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return str(error) or type(error).__name__


def _free(head: HeadRun, device: torch.device, outcome: _Outcome) -> None:
    """Frees the memory of a finished head: its weights on a GPU, and what a failed step left behind."""
    head.module.trainer = None
    head.module.losses = {}
    head.module.to("cpu")
    if outcome.failure is not None:
        gc.collect()  # the error's frames hold the activations of the failed step
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _report(group: Path, heads: list[HeadRun], outcomes: dict[str, _Outcome]) -> dict[str, Any]:
    """Prints each run's last line. Raises WorkFailed where heads were stopped, the others' figures in it."""
    summaries: dict[str, Any] = {}
    for head in heads:
        outcome = outcomes[head.name]
        if outcome.failure is None:
            summaries[head.name] = report(head, outcome.seconds)
        else:
            print(f"{head.folder}: {outcome.failure}")
            summaries[head.name] = {"run": str(head.folder), "stopped": outcome.failure}
    summary = {"run": str(group), "heads": summaries, **_best(heads, summaries)}
    if stopped := [name for name, outcome in outcomes.items() if outcome.failure]:
        raise HeadsStopped(
            f"{len(stopped)} of {len(heads)} heads were stopped: "
            + "; ".join(f"{name} {outcomes[name].failure}" for name in stopped),
            summary,
        )
    return summary


def _best(heads: list[HeadRun], summaries: dict[str, Any]) -> dict[str, Any]:
    """Names and prints the head of the best last validation; nothing where none was measured."""
    info = task_info(heads[0].record.task)
    score, best = info.score(info.main_score), ""
    for name, summary in summaries.items():
        value = summary.get(score.name)
        if value is not None and (not best or score.is_better(value, summaries[best][score.name])):
            best = name
    if not best:
        return {}
    value = summaries[best][score.name]
    print(
        f"best of {len(heads)} heads: {best}, {score.name} {score.shown(value)}, chosen on the validation "
        "records themselves"
    )
    return {"best": best, "best_score": {score.name: value}}


class HeadsStopped(WorkFailed):
    """Some of several heads failed; `summary` covers all of them."""

    def __init__(self, message: str, summary: dict[str, Any]) -> None:
        super().__init__(message)
        self.summary = summary
