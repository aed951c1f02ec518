"""The one way checkpoints are read and written as tensors: digest compared, weights finite, no code run."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import UsageError, WorkFailed
from pipelines.runs.checkpoint_files import (
    DamagedCheckpoint,
    check_digest,
    no_whole_checkpoint,
    write_checkpoint_bytes,
)
from pipelines.runs.run_folder import checkpoints

logger = logging.getLogger(__name__)

WEIGHTS, OPTIMIZER = "state_dict", "optimizer_states"
"""Keys of a Lightning checkpoint."""


def checkpoint_bytes(content: Mapping[str, Any]) -> memoryview:
    """A checkpoint as the bytes of its file.

    Raises WorkFailed where its weights are not finite: nothing could be resumed from it or measured on it.
    """
    if name := not_finite(content.get(WEIGHTS)):
        raise WorkFailed(
            f"weights {name} are not finite after step {content.get('global_step')}; the last checkpoint is "
            "from before. Train with a lower --lr or more --warmup-steps"
        )
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getbuffer()


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a checkpoint with its digest. Raises WorkFailed as `checkpoint_bytes`, and OSError."""
    path.parent.mkdir(exist_ok=True)
    write_checkpoint_bytes(path, checkpoint_bytes(content))


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """A checkpoint as plain tensors and numbers: one that was tampered with can run no code.

    Raises DamagedCheckpoint where its digest differs, it cannot be read, or its weights or its optimiser's
    state are not finite; UsageError where it does not exist.
    """
    check_digest(path)
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except (MemoryError, torch.OutOfMemoryError, PermissionError):
        raise
    except Exception as error:  # unpickling raises whatever broken bytes lead it to, OSError too
        raise DamagedCheckpoint(f"{path} is damaged: it cannot be read ({type(error).__name__})") from error
    if not isinstance(content, dict) or not isinstance(content.get(WEIGHTS), Mapping):
        raise DamagedCheckpoint(f"{path} is damaged: it has no {WEIGHTS}")
    for part in (WEIGHTS, OPTIMIZER):
        if name := not_finite(content.get(part)):
            raise DamagedCheckpoint(f"{path} is damaged: {part} {name} is not finite")
    return content


def checkpoint_to_resume(folder: Path) -> Path | None:
    """The last intact checkpoint of a run; None where it has none at all, damaged or not.

    A damaged one is named in the log and the one before is taken. Raises DamagedCheckpoint where all are
    damaged.
    """
    found = checkpoints(folder)
    problems: list[str] = []
    for step, path in reversed(found.items()):
        try:
            load_checkpoint(path)
        except DamagedCheckpoint as error:
            problems.append(str(error))
            continue
        if problems:
            logger.warning("%s; resuming from step %d, %s", "; ".join(problems), step, path)
        return path
    if problems:
        raise no_whole_checkpoint(folder, problems)
    return None


def not_finite(tree: Any) -> str | None:
    """The name of the first tensor with a value that is not finite; None where all are."""
    for name, tensor in _tensors(tree, ""):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


def _tensors(tree: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield name, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from _tensors(value, f"{name}[{index}]")
