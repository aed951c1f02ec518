"""Costs of a run (costs.json): trainable parameters, step time, peak memory, hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.errors import UsageError
from stores.small_files import read_json

COSTS = "costs.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCosts:
    """What a run took up to its last checkpoint or validation, all its sessions together."""

    parameters: int
    """Trainable."""
    batch_size: int
    """Rows of a step."""
    timed_steps: int
    """Steps behind `timed_seconds`."""
    timed_seconds: float
    """Of training alone, waiting for rows included: without first steps, validations and checkpoints."""
    seconds: float
    """Of everything, from the first step on."""
    peak_bytes: int
    peak_of: Literal["device", "process"]
    """Memory that tensors took on the device; on a CPU what the process held at most."""
    device: str
    neck_parameters: int | None = None
    """Those of `parameters` that are in necks; None of earlier versions, as all that follow."""
    multiply_adds: int | None = None
    """Of the head for one row, in products and convolutions."""
    neck_multiply_adds: int | None = None
    row_bytes: int | None = None
    """Features of a row that the head reads, as stored."""
    input_px: Sequence[int] | None = None
    """Height and width of the most frequent padded view."""
    tokens: int | None = None
    """Patches of a row; None where the backbone is no Transformer."""
    backbone_multiply_adds: int | None = None
    """Of the backbone for one row."""

    @property
    def step_seconds(self) -> float | None:
        """The mean time of a step; None before one was timed."""
        return self.timed_seconds / self.timed_steps if self.timed_steps else None


def read_costs(folder: Path) -> RunCosts | None:
    """The costs of a run; None where none were written yet."""
    path = folder / COSTS
    if not path.is_file():
        return None
    try:
        return RunCosts(**read_json(path))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} does not hold the costs of a run: {error}; remove it") from error
