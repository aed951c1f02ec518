"""ENGINE=slurm: an array of jobs through submitit, each of which extracts a part of the store."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pipelines.config import ExtractConfig, SlurmConfig
from pipelines.config.time_span import seconds_of
from pipelines.engines.merged_summary import merged_summary
from pipelines.engines.slurm_task import SIGNAL, Extract, SlurmTask
from pipelines.errors import Interrupted, UsageError
from pipelines.next_step import command

logger = logging.getLogger(__name__)

POLL_S = 5.0
"""Seconds between two looks at the tasks."""
_SIGNAL_NAME = "SUBMITIT_PREEMPT_SIGNAL"
_DEFAULT_LIMIT = 1001
"""SLURM's own MaxArraySize, where scontrol does not say it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """An array that was submitted."""

    jobs: Sequence[Any]
    """submitit's jobs, one a task."""
    shards_a_task: int | None
    poll_s: float

    @property
    def ids(self) -> list[str]:
        return [str(job.job_id) for job in self.jobs]


def require_slurm(config: ExtractConfig) -> None:
    """Raises UsageError where nothing can be submitted from here, or by these flags."""
    for flag, value in (("--part", config.part), ("--devices", config.devices)):
        if value is not None:
            raise UsageError(
                f"{flag} {value} with --engine slurm: its tasks get parts and GPUs by themselves"
            )
    if config.retry_skipped:
        raise UsageError("--retry-skipped is the work of one process: pass --engine local")
    _submitit()
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if missing and config.slurm.cluster == "slurm":
        raise UsageError(
            f"--engine slurm: no {' and no '.join(missing)} on this machine; run it where jobs are "
            "submitted, or try it with --slurm.cluster local"
        )


def tasks_of(slurm: SlurmConfig, shards: int, limit: int) -> tuple[int, int | None]:
    """Number of tasks, and shards of each; None: they share all.

    Args:
        shards: of the store.
        limit: MaxArraySize, the number of tasks that an array must stay below.

    >>> tasks_of(SlurmConfig(shards=4), 100, 1001), tasks_of(SlurmConfig(shards=4), 100, 11)
    ((25, 4), (10, 10))
    """
    if slurm.shards is None:
        return max(1, min(slurm.parallel, shards, limit - 1)), None
    each = max(slurm.shards, -(-shards // (limit - 1)))
    return max(1, -(-shards // each)), each


def submit(config: ExtractConfig, shards: int, extract: Extract) -> Submitted:
    """Submits the array.

    Args:
        config: of the extraction.
        shards: of the store.
        extract: what each task calls with its own configuration.

    Raises UsageError where sbatch refuses it.
    """
    slurm = config.slurm
    limit = _array_limit() if slurm.cluster == "slurm" else _DEFAULT_LIMIT
    count, each = tasks_of(slurm, shards, limit)
    if slurm.shards is not None and each != slurm.shards:
        print(f"MaxArraySize {limit}: {each} shards a task instead of {slurm.shards}")
    limit_s, before_end_s = seconds_of(slurm.time), seconds_of(slurm.before_end)
    tasks = [
        SlurmTask(extract, _config_of_task(config, f"{number}/{count}", each), limit_s - before_end_s / 5)
        for number in range(count)
    ]
    executor = _executor(slurm, limit_s, before_end_s)
    try:
        with executor.batch():
            jobs = [executor.submit(task) for task in tasks]
        ids = [job.job_id for job in jobs]  # known once the batch is submitted
    except (RuntimeError, subprocess.CalledProcessError) as error:  # submitit's FailedJobError among them
        raise UsageError(f"--engine slurm: the array was not submitted: {error}") from error
    logger.info("submitted %d tasks: %s to %s", count, ids[0], ids[-1])
    poll_s = POLL_S if slurm.cluster == "slurm" else 0.2
    return Submitted(jobs=jobs, shards_a_task=each, poll_s=poll_s)


def _config_of_task(config: ExtractConfig, part: str, most: int | None) -> ExtractConfig:
    limits = [count for count in (config.max_shards, most) if count is not None]
    return dataclasses.replace(
        config, engine="local", slurm=SlurmConfig(), part=part, max_shards=min(limits, default=None)
    )


def _executor(slurm: SlurmConfig, limit_s: int, before_end_s: int) -> Any:
    submitit = _submitit()
    logs = Path(slurm.logs).absolute() / "%j"
    if slurm.cluster == "local":
        local = submitit.LocalExecutor(logs, max_num_timeout=slurm.requeues)
        local.update_parameters(timeout_min=limit_s / 60, signal_delay_s=before_end_s)
        return local
    executor = submitit.SlurmExecutor(logs, max_num_timeout=slurm.requeues)
    named = {name: getattr(slurm, name) for name in ("partition", "account", "qos", "gres", "mem")}
    executor.update_parameters(
        **{name: value for name, value in named.items() if value is not None},
        job_name="permafrost",
        time=-(-limit_s // 60),
        cpus_per_task=slurm.cpus,
        array_parallelism=slurm.parallel,
        signal_delay_s=before_end_s,
        setup=[*slurm.setup, f"export {_SIGNAL_NAME}={os.environ[_SIGNAL_NAME]}"],
        srun_args=[f"--cpus-per-task={slurm.cpus}"],  # since SLURM 22.05 srun does not take it from sbatch
        additional_parameters={"requeue": True},
    )
    return executor


def _submitit() -> ModuleType:
    """The package, which asks tasks to stop by SIGNAL: its processes on nodes read the environment.

    Raises UsageError where it is not installed.
    """
    os.environ[_SIGNAL_NAME] = SIGNAL.name.removeprefix("SIG")
    try:
        import submitit  # late: an extra
    except ImportError as error:
        raise UsageError("--engine slurm needs the extra: pip install -e '.[slurm]'") from error
    submitit.JobEnvironment.USR_SIG = os.environ[_SIGNAL_NAME]  # where it was imported before
    return submitit


def _array_limit() -> int:
    """MaxArraySize of the cluster."""
    try:
        shown = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return _DEFAULT_LIMIT
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", shown)
    return int(found[1]) if found and int(found[1]) > 1 else _DEFAULT_LIMIT


def wait_for(submitted: Submitted, status: str) -> dict[str, Any]:
    """The summary of all tasks, once they have ended.

    Args:
        status: the command that shows how far they are.

    Raises:
        WorkFailed: a task failed; says how and where its log is.
        Interrupted: the user stopped waiting; the tasks continue.
    """
    waiting = dict(zip(submitted.ids, submitted.jobs, strict=True))
    done: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    try:
        while waiting:
            for name, job in [(name, job) for name, job in waiting.items() if job.done()]:
                del waiting[name]
                outcome = _outcome(job)
                if isinstance(outcome, str):
                    failed[f"task {name}"] = f"{outcome} (log: {job.paths.stderr})"
                else:
                    done.append(outcome)
                logger.info("task %s has ended, %d are left", name, len(waiting))
            if waiting:
                time.sleep(submitted.poll_s)
    except KeyboardInterrupt:
        print(f"the tasks continue; scancel {submitted.ids[0].partition('_')[0]} ends them")
        raise Interrupted(status) from None
    return merged_summary(done, failed, processes=len(submitted.jobs))


def _outcome(job: Any) -> dict[str, Any] | str:
    """The summary of a task, or how it failed."""
    error = job.exception()
    if error is None:
        return dict(job.result())
    _, _, trace = str(error).partition("-" * 20)  # submitit writes one between dashes
    lines = [line for line in trace.splitlines() if line.strip("- ")]
    of_trace = [line for line in lines if not line.startswith((" ", "You can", "or at"))]
    return f"failed: {of_trace[-1] if of_trace else str(error).strip().splitlines()[0]}"


def status_command(store: Path | None, stores: str) -> str:
    """The command that shows how far the tasks are."""
    return command("status", store=store) if store is not None else command("status", stores=stores)
