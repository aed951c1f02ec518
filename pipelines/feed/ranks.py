"""Ranks of a distributed run: which process this is, and values that all must agree on.

`torchrun` starts them and sets environment variables; without it there is one. A step's rows are divided
among them, rank 0 alone writes the folder of the run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from pipelines.errors import UsageError, WorkFailed

Value = TypeVar("Value")

_PATIENCE = timedelta(hours=4)
"""How long ranks wait for rank 0, which measures and writes while they do nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """Of this process: its number among all and among those of its machine, and how many there are."""

    rank: int = 0
    local_rank: int = 0
    world: int = 1
    local_world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the only one that writes."""
        return self.rank == 0

    @property
    def machines(self) -> int:
        return self.world // self.local_world


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """The ranks as set by torchrun.

    >>> ranks_of({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"})
    Ranks(rank=3, local_rank=1, world=4, local_world=2)
    >>> ranks_of({}).world
    1
    """
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"} <= set(environment):
        return Ranks()
    return Ranks(
        rank=int(environment["RANK"]),
        local_rank=int(environment["LOCAL_RANK"]),
        world=int(environment["WORLD_SIZE"]),
        local_world=int(environment["LOCAL_WORLD_SIZE"]),
    )


def join_ranks(device: torch.device) -> Ranks:
    """Meets the other processes, if torchrun started any: nccl between GPUs, gloo otherwise."""
    ranks = ranks_of(os.environ)
    if ranks.world > 1 and not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=_PATIENCE, device_id=device if backend == "nccl" else None)
    if not ranks.is_first:  # one log, not as many as there are processes
        logging.getLogger("pipelines").setLevel(logging.WARNING)
    return ranks


def rows_of_rank(batch_size: int, ranks: int) -> int:
    """The rows of a step on each of `ranks` processes. Raises UsageError where they would differ."""
    if batch_size % ranks:
        raise UsageError(
            f"--batch-size {batch_size}: expected a multiple of the {ranks} processes, which share the rows "
            "of a step evenly"
        )
    return batch_size // ranks


def from_first_rank(make: Callable[[], Value]) -> Value:
    """What rank 0 makes, on every rank; small things only.

    Raises what `make` raises on rank 0, and WorkFailed with its message on the others.
    """
    if not _several():
        return make()
    held: list[Any] = [None, None]
    error: Exception | None = None
    if dist.get_rank() == 0:
        try:
            held[0] = make()
        except Exception as caught:
            error, held[1] = caught, str(caught)
    dist.broadcast_object_list(held, src=0)
    if error is not None:
        raise error
    if held[1] is not None:
        raise WorkFailed(f"rank 0 failed: {held[1]}")
    made: Value = held[0]
    return made


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The mean of a float tensor over the processes that train together."""
    if not _several():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def largest_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The largest of an integer tensor over the processes that train together."""
    if not _several():
        return value
    most = value.clone()
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return most
