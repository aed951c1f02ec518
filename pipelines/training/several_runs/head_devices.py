"""`train-head --devices`: several heads shared among devices, a process each, in one command.

<run>/device0/<name>/   the runs of the first device, see many_heads.py; its folder is resumed by itself
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipelines.catalog.choose_store import find_training_stores
from pipelines.config import ManyHeadsConfig, TrainConfig
from pipelines.engines.devices import chosen_devices
from pipelines.errors import DONE, INTERRUPTED, UsageError, WorkFailed
from pipelines.json_output import json_text
from pipelines.next_step import command, print_next
from pipelines.runs.run_folder import new_run_folder, read_run
from pipelines.tasks import task_info

if TYPE_CHECKING:
    from pipelines.engines.child_process import ChildProcess


def devices_of(config: TrainConfig | ManyHeadsConfig) -> tuple[str, ...]:
    """Devices with a process each; fewer than two: this process trains.

    Raises UsageError for one head, which takes no second device.
    """
    heads = config.heads if isinstance(config, ManyHeadsConfig) else {"": config}
    first = next(iter(heads.values()))
    if first.devices is None:
        return ()
    devices = chosen_devices(first.devices, first.device, torch.cuda.device_count(), os.environ)
    if isinstance(config, TrainConfig):
        raise UsageError(
            f"--devices {first.devices} with one head: it shares several heads or learning rates among "
            "devices; one head on several GPUs: torchrun --nproc-per-node N -m -- pipelines train-head ..."
        )
    if config.resume:
        raise UsageError(
            "--devices with --resume: resume each device by itself, --run <run>/device0 and so on"
        )
    return devices[: len(heads)]


def shares(names: Sequence[str], devices: int) -> list[list[str]]:
    """The heads of each device, in turn.

    >>> shares(["a", "b", "c"], 2)
    [['a', 'c'], ['b']]
    """
    return [list(names[number::devices]) for number in range(devices)]


def train_on(devices: Sequence[str], config: ManyHeadsConfig) -> dict[str, Any]:
    """Trains the heads, a share of them on each device. Returns the folder and each run's summary.

    Raises WorkFailed where a head was stopped or a process ended; the runs of the others are whole.
    """
    # Late: the processes of extractions, whose extractor a training from a store needs not.
    from pipelines.engines.child_process import ChildProcess, passing_signals_on

    first = next(iter(config.heads.values()))
    source = str(first.model) if first.online else find_training_stores(first)[0].name
    folder = new_run_folder(config.run, source, f"{len(config.heads)}-heads")
    if any(folder.glob("device*")):
        raise UsageError(f"{folder} already holds runs; resume those of each device, or pass another --run")
    environment = dict(os.environ)
    if devices[0] == "cpu":
        cores = max(1, len(os.sched_getaffinity(0)) // len(devices))
        environment.setdefault("OMP_NUM_THREADS", str(cores))
    processes = []
    for number, names in enumerate(shares(list(config.heads), len(devices))):
        settings = folder / f"settings-{number}.yaml"  # device* shall be runs alone
        own = {name: _settings_of(config.heads[name], devices[number]) for name in names}
        settings.write_text(json_text({"heads": own}, indent=2))  # JSON is YAML
        words = ["train-head", "--config", str(settings), "--run", str(folder / f"device{number}")]
        processes.append(ChildProcess(f"{number} ({devices[number]})", words, environment))
    print(f"{len(devices)} processes: {', '.join(devices)}", flush=True)
    with passing_signals_on(processes):
        for process in processes:
            process.wait()
    return _summary_of(folder, processes)


def _settings_of(config: TrainConfig, device: str) -> dict[str, Any]:
    """One head's settings as a file gives them, all of them: the defaults of a recipe are among them."""
    left_out = ("run", "devices", "json", "debug", "data_fraction")
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in left_out}
    fields["device"] = device
    return {name: value for name, value in fields.items() if value not in (None, {}, ())}


def _summary_of(folder: Path, processes: Sequence[ChildProcess]) -> dict[str, Any]:
    found = [process.summary for process in processes]
    heads = {name: each for summary in found for name, each in summary.get("heads", {}).items()}
    runs = {name: str(each["run"]) for name, each in heads.items()}
    summary = {"run": str(folder), "heads": heads, "processes": len(processes), **_best_of(found, runs)}
    codes = {process.name: process.code for process in processes if process.code != DONE}
    if codes and set(codes.values()) <= {INTERRUPTED, -signal.SIGINT}:
        raise KeyboardInterrupt
    if codes:
        errors = {p.name: each.get("error", "") for p, each in zip(processes, found, strict=True)}
        named = "; ".join(f"process {n} ended with {code} {errors[n]}".rstrip() for n, code in codes.items())
        raise WorkFailed(f"{named}; the runs under {folder} that have ended are whole", summary)
    if "best" in summary:
        print(f"best of {len(heads)} heads: {summary['best']}")
    print(f"{folder}: {len(heads)} heads trained")
    print_next(command("report", run=folder))
    return summary


def _best_of(summaries: Sequence[Mapping[str, Any]], runs: Mapping[str, str]) -> dict[str, Any]:
    """The best of each device's best; nothing where no head was measured."""
    scored = [(each["best"], each["best_score"]) for each in summaries if each.get("best")]
    if not scored:
        return {}
    best, name = scored[0], next(iter(scored[0][1]))
    score = task_info(read_run(Path(runs[best[0]])).task).score(name)
    for other in scored[1:]:
        if score.is_better(other[1][name], best[1][name]):
            best = other
    return {"best": best[0], "best_score": best[1]}
