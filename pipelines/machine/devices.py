"""Device and precision of a verb."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from pipelines.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device of `--device`; auto prefers a GPU. Raises UsageError for an unknown or absent device."""
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:<number>") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:<number>")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: this machine has {torch.cuda.device_count()} GPUs that torch can use"
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def uses_bf16(precision: str | None, device: torch.device) -> bool:
    """Whether a head runs under bf16 autocast: as `--precision` says; by default only on a GPU."""
    return precision == "bf16" if precision else device.type == "cuda"


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """bf16 autocast on `device`, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
