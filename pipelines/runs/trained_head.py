"""The head of a run, with fresh or with trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from heads import build_head
from heads.contract import Head
from heads.index import find_head
from pipelines.machine.memory_format import channels_last
from pipelines.runs.checkpoint_files import LAST, DamagedCheckpoint, last_whole_checkpoint, named_checkpoint
from pipelines.runs.load_checkpoint import WEIGHTS, load_checkpoint
from pipelines.runs.run_folder import RunRecord, read_run, step_of
from stores.pyramid import PyramidSpec


def new_head(record: RunRecord) -> Head:
    """The run's head with fresh weights."""
    pyramid = PyramidSpec.from_json(record.pyramid)
    find_head(record.head, record.task, record.head_package)
    return build_head(record.head, record.task, pyramid, record.num_classes, **record.full_settings)


def load_head(
    folder: Path, device: torch.device, checkpoint: str = LAST, *, command: str | None = None
) -> tuple[Head, int]:
    """The trained head of a run in evaluation mode on `device`, and the step it was trained to.

    Args:
        folder: of the run.
        device: of the head.
        checkpoint: last, best or the number of a step.
        command: that takes `--checkpoint`, for the advice of an error; None for Python code.

    Raises DamagedCheckpoint, with the checkpoint to use instead; UsageError where the run has none.
    """
    record = read_run(folder)
    path = named_checkpoint(folder, checkpoint)
    step = step_of(path)
    try:
        state = load_checkpoint(path, device)[WEIGHTS]
        head = new_head(record)
        set_weights(head, state, path)
    except DamagedCheckpoint as error:
        raise DamagedCheckpoint(f"{error}; {_instead(folder, step, command)}") from error
    return channels_last(head).to(device).eval().requires_grad_(False), step


def set_weights(head: Head, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raises DamagedCheckpoint, naming the file, for names or shapes that are not the head's."""
    try:
        head.load_state_dict({name.removeprefix("head."): value for name, value in state.items()})
    except RuntimeError as error:  # torch's, over many lines
        lines = str(error).splitlines()
        raise DamagedCheckpoint(
            f"{path} does not fit the head of run.json: {' '.join(line.strip() for line in lines[1:3])}"
        ) from error


def _instead(folder: Path, step: int, command: str | None) -> str:
    whole = last_whole_checkpoint(folder, before=step)
    if whole is None:
        return "no earlier checkpoint is intact; train the run again with another --run"
    chosen = f"{command} --checkpoint {whole[0]}" if command else f"--checkpoint {whole[0]}"
    return f"the checkpoint of step {whole[0]} is intact; to use it: {chosen}"
