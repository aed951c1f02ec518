"""The devices of `--devices`, one process each, and the default: all GPUs that are visible."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipelines.errors import UsageError

_OF_TASKS = ("LOCAL_RANK", "SLURM_PROCID")
"""Set in each of several processes that a launcher has started: these are a process a GPU already."""


def chosen_devices(
    given: str | None, device: str, visible_gpus: int, environment: Mapping[str, str]
) -> tuple[str, ...]:
    """The device of each process; one: this process does the work itself.

    Args:
        given: of `--devices`: `cpu:2` for two processes on the CPU, `all` for all visible GPUs, or names such
            as `cuda:0,cuda:2`; None: all visible GPUs, unless `device` names one or a launcher has started
            several processes.
        device: of `--device`.
        visible_gpus: GPUs that torch can use.
        environment: the variables of the process.

    Raises UsageError for anything else, and where `--device` is given too.

    >>> chosen_devices("cpu:2", "auto", 0, {}), chosen_devices(None, "auto", 2, {})
    (('cpu', 'cpu'), ('cuda:0', 'cuda:1'))
    """
    gpus = tuple(f"cuda:{number}" for number in range(visible_gpus))
    if given is None:
        by_itself = device == "auto" and len(gpus) > 1 and not any(name in environment for name in _OF_TASKS)
        return gpus if by_itself else (device,)
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
