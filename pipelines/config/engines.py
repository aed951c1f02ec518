"""Settings of the engines that run an extraction on a cluster: SLURM and Ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipelines.config.fields import marks
from pipelines.config.time_span import seconds_of

__all__ = ["RayConfig", "SlurmConfig"]


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads a nested default by vars()
class SlurmConfig:
    """The array of jobs that ENGINE=slurm submits."""

    partition: str | None = None
    """Partition of the array. Default: the cluster's."""
    account: str | None = None
    """Account it is charged to. Default: the user's."""
    qos: str | None = None
    """Quality of service. Default: the cluster's."""
    time: str = "4h"
    """Time limit of a task, such as 3h50m; a task that reaches it is queued again."""
    gres: str = "gpu:1"
    """Resources of a task; a task with several GPUs starts a process for each."""
    cpus: int = field(default=8, metadata=marks(least=1))
    """Cores of a task."""
    mem: str | None = None
    """Memory of a task, such as 64GB. Default: the cluster's."""
    setup: tuple[str, ...] = ()
    """Shell commands before a task's Python starts, such as module load cuda."""
    parallel: int = field(default=8, metadata=marks(least=1))
    """Tasks that run at once, at most."""
    shards: int | None = field(default=None, metadata=marks(least=1))
    """Shards of a task, for many short tasks. Default: `parallel` tasks share all shards."""
    before_end: str = "5m"
    """How long before its limit a task gets SIGUSR1: it finishes its running shard, or drops it when a fifth
    of this time is left, and is queued again."""
    requeues: int = field(default=100, metadata=marks(least=0))
    """How often a task that reached its limit is queued again, at most."""
    submit_only: bool = False
    """Print the job ids and return. By default the command waits for the tasks and prints what they did."""
    submit_as: Literal["cuda"] | None = None
    """cuda: plan as a GPU does (fp16, batches of 32) and create the store at once, on a machine without one.
    Default: the first task that runs plans and creates it."""
    logs: str = "slurm"
    """Folder of the tasks' logs, which all nodes share."""
    cluster: Literal["slurm", "local"] = "slurm"
    """local: tasks are processes of this machine, all at once, to try an array without SLURM."""

    def __post_init__(self) -> None:
        for name in ("time", "before_end"):
            try:
                seconds_of(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"slurm.{name} {error}") from None
        if seconds_of(self.time) < 60 or seconds_of(self.before_end) >= seconds_of(self.time):
            raise ValueError(
                f"slurm.time {self.time}, slurm.before_end {self.before_end}: expected a minute or more, and "
                "a signal before the end that comes after the start"
            )


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads a nested default by vars()
class RayConfig:
    """The actors of ENGINE=ray."""

    address: str | None = None
    """Ray cluster to join, such as auto. Default: that of RAY_ADDRESS, else one on this machine."""
    actors: int | None = field(default=None, metadata=marks(least=1))
    """Processes, each with a backbone. Default: one a GPU of the cluster, without GPUs one a node."""
    actor_cpus: float = 1.0
    """Cores that Ray reserves for an actor."""
    restarts: int = field(default=10, metadata=marks(least=0))
    """How often an actor whose process or node ended is started again, at most."""
