"""Heads by name: one architecture a file; its presets stand in it as HEADS.

Imports torch, torchvision.ops, numpy, scipy and stores.pyramid only.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import Any

import torch

from heads.contract import Head, HeadError, HeadPreset, check_levels, initial_seed
from stores.pyramid import PyramidSpec

__all__ = ["build_head", "head_names", "head_settings"]


def build_head(
    name: str, task: str, pyramid: PyramidSpec, num_classes: int, *, seed: int | None = None, **settings: Any
) -> Head:
    """A new head in train mode, its kernels in channels_last order.

    Args:
        name: a name of `head_names(task)`; one name may mean different heads for different tasks.
        pyramid: the levels there are; it must hold those the head needs, in any channels and strides.
        num_classes: classes without any background or ignored one, 1 or more.
        seed: the first weights follow from (seed, task, name) and no random state is left changed. None: they
            come from torch's global generator, as those of any module.
        settings: fields of `head_settings(name, task)` that differ from the preset's.

    Raises HeadError (a ValueError) for an unknown name, an unknown setting or value, or a level that is
    missing.
    """
    preset = _preset(name, task)
    check_levels(name, preset.levels, pyramid.names)
    if num_classes < 1:
        raise HeadError(f"num_classes is {num_classes}, expected 1 or more")
    chosen = preset.settings_with(name, settings)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(initial_seed(seed, task, name))
        head = preset.build(pyramid.select(preset.levels), num_classes, chosen)
    # Features arrive as channels_last; kernels in the same order spare a conversion in each step.
    return head.to(memory_format=torch.channels_last)


def head_names(task: str) -> tuple[str, ...]:
    """The names there are for a task, by file. Raises HeadError for a task without heads."""
    names = tuple(name for known_task, name in _presets() if known_task == task)
    if not names:
        tasks = sorted({known_task for known_task, _ in _presets()})
        raise HeadError(f"no heads for task {task!r}; there are heads for {', '.join(tasks)}")
    return names


def head_settings(name: str, task: str) -> Any:
    """The preset's settings, a frozen dataclass of what `build_head` takes. Raises HeadError as it does."""
    return _preset(name, task).settings


def _preset(name: str, task: str) -> HeadPreset:
    names = head_names(task)
    if name not in names:
        raise HeadError(f"no head {name!r} for task {task!r}; there are {', '.join(names)}")
    return _presets()[task, name]


@cache
def _presets() -> dict[tuple[str, str], HeadPreset]:
    """Every preset by (task, name), found by looking into each file of this package."""
    found: dict[tuple[str, str], HeadPreset] = {}
    for module in pkgutil.walk_packages(__path__, "heads."):
        presets: dict[str, HeadPreset] = getattr(import_module(module.name), "HEADS", {})
        for name, preset in presets.items():
            if (preset.task, name) in found:
                raise RuntimeError(f"{module.name} names {name!r} again for task {preset.task!r}")
            found[preset.task, name] = preset
    return found
