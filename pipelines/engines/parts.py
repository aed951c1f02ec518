"""The part of a store that this process takes first: from `--part`, or from what started the process.

Read are the variables of SLURM (arrays and tasks), of Kubernetes' Indexed Jobs and of torchrun. A part only
orders the work: claims keep two processes from the same shard, so a wrong part loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from extract.extractor.shared_shards import Part
from pipelines.errors import UsageError

JOB_INDEX = "JOB_COMPLETION_INDEX"
_ARRAY = "SLURM_ARRAY_TASK_"


@dataclass(frozen=True, slots=True)
class ChosenPart:
    """A part, and where it came from, for the first line of the output."""

    part: Part
    source: str


def choose_part(given: str | None, environment: Mapping[str, str]) -> ChosenPart | None:
    """The part of `--part`, else that of the environment; None: one process for the whole store.

    Args:
        given: `index/count` from 0, `auto/count`, none, or None for whatever the environment says.
        environment: the variables of the process.

    Raises UsageError: an index beyond the count, `auto` without an index in the environment, or a variable
    that is no number.

    >>> choose_part("auto/4", {"JOB_COMPLETION_INDEX": "3"})
    ChosenPart(part=Part(index=3, count=4), source='JOB_COMPLETION_INDEX 3 of Kubernetes, --part auto/4')
    """
    if given == "none":
        return None
    if given is None:
        return _part_of_environment(environment)
    index, _, count = given.partition("/")
    if index == "auto":
        return _automatic(given, int(count), environment)
    return ChosenPart(_part(int(index), int(count), f"--part {given}"), f"--part {given}")


def _automatic(given: str, count: int, environment: Mapping[str, str]) -> ChosenPart:
    if JOB_INDEX in environment:
        index = _number(environment, JOB_INDEX)
        source = f"{JOB_INDEX} {index} of Kubernetes, --part {given}"
        return ChosenPart(_part(index, count, source), source)
    found = _part_of_environment(environment)
    if found is None:
        raise UsageError(
            f"--part {given}: the environment holds no number of a part ({JOB_INDEX}, {_ARRAY}ID, or "
            "SLURM_PROCID with SLURM_NTASKS); pass it, such as --part 0/8"
        )
    if found.part.count != count:
        raise UsageError(
            f"--part {given}: the environment says part {found.part} ({found.source}); leave --part out, or "
            f"start {count} processes"
        )
    return found


def _part_of_environment(environment: Mapping[str, str]) -> ChosenPart | None:
    array, task = _array_task(environment), _torchrun(environment) or _slurm_task(environment)
    if array is None or task is None:
        return array or task
    part = Part(array.part.index * task.part.count + task.part.index, array.part.count * task.part.count)
    return ChosenPart(part, f"{array.source}; {task.source}")


def _array_task(environment: Mapping[str, str]) -> ChosenPart | None:
    """Of a SLURM array: (ID - MIN) / STEP. Of a list such as 0,3,7 the parts between have no process of their
    own, and the others help."""
    if f"{_ARRAY}ID" not in environment:
        return None
    number, first = (_number(environment, f"{_ARRAY}{name}") for name in ("ID", "MIN"))
    last = _number(environment, f"{_ARRAY}MAX")
    step = _number(environment, f"{_ARRAY}STEP", default=1) or 1
    source = f"task {number} of the SLURM array {first}-{last}" + (f":{step}" if step > 1 else "")
    return ChosenPart(_part((number - first) // step, (last - first) // step + 1, source), source)


def _slurm_task(environment: Mapping[str, str]) -> ChosenPart | None:
    """Of `srun`. A job of one task is no part."""
    if not {"SLURM_PROCID", "SLURM_NTASKS"} <= environment.keys():
        return None
    return _one_of(environment, "SLURM_PROCID", "SLURM_NTASKS")


def _torchrun(environment: Mapping[str, str]) -> ChosenPart | None:
    """RANK counts only together with LOCAL_RANK: other programs set RANK alone."""
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= environment.keys():
        return None
    return _one_of(environment, "RANK", "WORLD_SIZE")


def _one_of(environment: Mapping[str, str], index: str, count: str) -> ChosenPart | None:
    mine, all_of_them = _number(environment, index), _number(environment, count)
    source = f"{index} {mine} of {count} {all_of_them}"
    return ChosenPart(_part(mine, all_of_them, source), source) if all_of_them != 1 else None


def _number(environment: Mapping[str, str], name: str, *, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdigit()):
        found = repr(text) if name in environment else "not set"
        raise UsageError(f"{name} is {found}: expected a number; pass the part yourself, such as --part 0/8")
    return int(text)


def _part(index: int, count: int, source: str) -> Part:
    try:
        return Part(index, count)
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from error
