"""Measured duration of a head's training step, on random features and labels."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from heads import build_head
from pipelines.config import TrainConfig
from pipelines.machine.devices import autocast, uses_bf16
from pipelines.tasks import task_of
from pipelines.training.optimisation.optimizer import build_optimizer
from stores.pyramid import PyramidSpec

FEWEST_ROWS = 2
"""Batch norms refuse one row of one cell."""
CPU_PIXELS = 2 * 352 * 352
"""A processor is given that much of a step, and the rest is taken to cost in proportion."""
STEPS = 3
ENOUGH_S = 5.0
"""Timed steps that took so long together are enough: a large head on a small CPU is no reason to wait."""


def head_step_seconds(
    config: TrainConfig,
    task: str,
    pyramid: PyramidSpec,
    num_classes: int,
    padded_hw: tuple[int, int],
    device: torch.device,
    frames: int | None = None,
) -> float:
    """Forward, losses, backward and optimiser of `config.batch_size` rows of `padded_hw` pixels; of videos
    `frames` frames each.

    Raises ValueError where the head is unknown or needs a level that the pyramid lacks.
    """
    head = build_head(config.head, task, pyramid, num_classes, seed=0, **config.head_settings)
    head = head.to(device).train()
    optimizer = build_optimizer(head, config.optimizer)
    rows, (height, width) = config.batch_size, padded_hw
    if device.type == "cpu":
        while FEWEST_ROWS * height * width > CPU_PIXELS:
            height, width = _halved(height), _halved(width)
        rows = max(1, min(rows, CPU_PIXELS // (height * width)))
    generator = torch.Generator().manual_seed(0)
    length = () if frames is None else (frames,)
    features = {
        level.name: torch.randn(
            (rows, level.channels, *length, level.cells(height), level.cells(width)), generator=generator
        ).to(device, memory_format=torch.channels_last_3d if length else torch.channels_last)
        for level in pyramid.select(head.levels)
    }
    made = task_of(task).made_targets(rows, (height, width), num_classes, generator)
    targets = [{name: tensor.to(device) for name, tensor in row.items()} for row in made]
    valid_hw = [(height, width)] * rows

    def step() -> None:
        with autocast(device, uses_bf16(config.precision, device)):
            losses = head.losses(features, targets, valid_hw, torch.Generator(device).manual_seed(0))
        optimizer.zero_grad(set_to_none=True)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()
    timed = [_timed(step)]
    while len(timed) < STEPS and sum(timed) < ENOUGH_S:
        timed.append(_timed(step))
    share = rows * height * width / (config.batch_size * padded_hw[0] * padded_hw[1])
    return min(timed) / share


def _halved(side_px: int) -> int:
    return max(32, side_px // 64 * 32)


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
