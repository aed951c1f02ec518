"""The head of a run, with fresh or with trained weights."""

from __future__ import annotations

from pathlib import Path

import torch

from heads import build_head
from heads.contract import Head
from heads.index import find_head
from pipelines.errors import UsageError
from pipelines.machine.memory_format import channels_last
from pipelines.runs.run_folder import RunRecord, last_checkpoint, read_run
from stores.pyramid import PyramidSpec


def new_head(record: RunRecord) -> Head:
    """The run's head with fresh weights."""
    pyramid = PyramidSpec.from_json(record.pyramid)
    find_head(record.head, record.task, record.head_package)
    return build_head(record.head, record.task, pyramid, record.num_classes, **record.full_settings)


def load_head(folder: Path, device: torch.device) -> tuple[Head, int]:
    """The trained head of a run in evaluation mode on `device`, and the step it was trained to.

    The checkpoint is read as plain tensors only: one that was tampered with can run no code.
    """
    record = read_run(folder)
    step, path = last_checkpoint(folder)
    try:
        state = torch.load(path, map_location=device, weights_only=True)["state_dict"]
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # unpickling raises whatever broken bytes lead it to
        raise UsageError(
            f"{path} is unreadable ({type(error).__name__}); delete it to use the previous checkpoint"
        ) from error
    head = new_head(record)
    head.load_state_dict({name.removeprefix("head."): value for name, value in state.items()})
    return channels_last(head).to(device).eval().requires_grad_(False), step
