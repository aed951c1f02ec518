"""One process a device: `extract` started for each with a part of its own, one progress, one summary."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from extract.extractor.shared_shards import Part
from pipelines.cli.progress_bar import ExtractionProgress
from pipelines.config import ExtractConfig
from pipelines.engines.child_process import ChildProcess, passing_signals_on
from pipelines.engines.merged_summary import merged_summary
from pipelines.engines.process_progress import TogetherProgress
from pipelines.engines.stop_request import StopRequest
from pipelines.errors import INTERRUPTED, UsageError
from pipelines.next_step import PROGRAM, same_extraction


def extract_on(
    devices: Sequence[str], config: ExtractConfig, part: Part | None, stop: StopRequest
) -> dict[str, Any]:
    """Runs `extract` once a device; returns one summary.

    Args:
        devices: of the processes.
        config: of the extraction; its workers are those of each process, by default an equal share.
        part: of all of them together, where other machines work too.
        stop: of this command, whose time has begun to run.

    Raises:
        UsageError: `retry_skipped`, which is the work of one process.
        WorkFailed: a process failed; the others did what they could.
        KeyboardInterrupt: after all processes have ended.
    """
    if config.retry_skipped:
        raise UsageError("--retry-skipped with --devices: it is the work of one process; pass --device")
    cores = max(1, len(os.sched_getaffinity(0)) // len(devices))
    environment = dict(os.environ)
    if devices[0] == "cpu":
        environment.setdefault("OMP_NUM_THREADS", str(cores))
    whole, left_s = part or Part(0, 1), stop.left_s
    stop_after = None if left_s is None else f"{max(0, int(left_s))}s"
    shares = None if config.max_shards is None else _shares(config.max_shards, len(devices))
    with ExtractionProgress(f"{config.dataset} {config.model}") as shown:
        together, processes = TogetherProgress(shown), []
        for number, device in enumerate(devices[: None if shares is None else len(shares)]):
            own = Part(whole.index * len(devices) + number, whole.count * len(devices))
            one = replace(
                config,
                device=device,
                devices=None,
                part=str(own),
                workers=config.workers or cores,
                stop_after=stop_after,
                max_shards=None if shares is None else shares[number],
            )
            words = shlex.split(same_extraction(one).removeprefix(PROGRAM))
            processes.append(ChildProcess(f"{number} ({device})", words, environment, together.read))
        with passing_signals_on(processes):
            for process in processes:
                process.wait()
    summary = _summary_of(processes)
    for flag, value in (("--stop-after", config.stop_after), ("--max-shards", config.max_shards)):
        if str(summary["stopped_by"]).startswith(flag):
            summary["stopped_by"] = f"{flag} {value}"
    return summary


def _shares(count: int, processes: int) -> list[int]:
    """`count` shared among so many processes, without those that would get none."""
    return [n for i in range(processes) if (n := count // processes + (i < count % processes))]


def _summary_of(processes: Sequence[ChildProcess]) -> dict[str, Any]:
    done = [process.summary for process in processes if process.code == 0]
    codes = {process.name: process.code for process in processes if process.code != 0}
    if codes and set(codes.values()) <= {INTERRUPTED, -signal.SIGINT}:
        raise KeyboardInterrupt
    failed = {f"process {name}": f"ended with {code}" for name, code in codes.items()}
    return merged_summary(done, failed, processes=len(processes))
