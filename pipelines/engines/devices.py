"""The devices of `--devices`, one process each, and the default: all GPUs that are visible."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipelines.errors import UsageError


def chosen_devices(
    given: str | None, device: str, visible_gpus: int, environment: Mapping[str, str]
) -> tuple[str, ...]:
    """The device of each process; one: this process does the work itself.

    Args:
        given: of `--devices`: `cpu:2` for two processes on the CPU, `all` for all visible GPUs, or names such
            as `cuda:0,cuda:2`; None: all visible GPUs, unless `device` names one. Of several processes that a
            launcher has started on this machine each takes one GPU, by its rank there.
        device: of `--device`.
        visible_gpus: GPUs that torch can use.
        environment: the variables of the process.

    Raises UsageError for anything else, and where `--device` is given too.

    >>> chosen_devices("cpu:2", "auto", 0, {}), chosen_devices(None, "auto", 2, {})
    (('cpu', 'cpu'), ('cuda:0', 'cuda:1'))
    """
    gpus = tuple(f"cuda:{number}" for number in range(visible_gpus))
    if given is None:
        if device != "auto" or len(gpus) < 2:
            return (device,)
        rank = rank_on_this_machine(environment)
        return gpus if rank is None else (gpus[rank % len(gpus)],)
    if device != "auto":
        raise UsageError(f"--device {device} and --devices {given}: pass one of them")
    if given == "all":
        if not gpus:
            raise UsageError("--devices all: torch finds no GPU here; cpu:2 starts two processes on the CPU")
        return gpus
    if processes := re.fullmatch(r"cpu:0*([1-9]\d{0,2})", given):
        return ("cpu",) * int(processes[1])
    names = tuple(given.split(","))
    if unknown := [name for name in names if name not in gpus]:
        raise UsageError(
            f"--devices {given}: {unknown[0]!r} is no GPU of this machine, which has {visible_gpus}; "
            "expected names such as cuda:0,cuda:1, all, or cpu:2 for two processes on the CPU"
        )
    return names


def rank_on_this_machine(environment: Mapping[str, str]) -> int | None:
    """Which of several processes that torchrun or srun has started on this machine this one is, from 0; None
    where it is the only one, or nobody has started it so.

    >>> rank_on_this_machine({"SLURM_LOCALID": "3", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"})
    3
    """
    if "LOCAL_RANK" in environment:
        several = environment.get("LOCAL_WORLD_SIZE", environment.get("WORLD_SIZE", "")) != "1"
        rank = environment["LOCAL_RANK"]
    else:
        counts = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_NTASKS", "1")
        several = any(int(count) > 1 for count in re.findall(r"(\d+)(?:\(x\d+\))?", counts))
        rank = environment.get("SLURM_LOCALID", "")
    return int(rank) if several and rank.isascii() and rank.isdigit() else None
