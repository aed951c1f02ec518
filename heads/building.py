"""Heads built by name, with their own first weights."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from heads.contract import Head, HeadPreset, initial_seed
from heads.errors import HeadError
from heads.index import HeadModule, find_head
from stores.pyramid import PyramidSpec


def build_head(
    name: str, task: str, pyramid: PyramidSpec, num_classes: int, *, seed: int | None = None, **settings: Any
) -> Head:
    """A new head in train mode, its kernels in channels_last order.

    Args:
        name: a name of `head_names(task)`; one name may mean different heads for different tasks.
        pyramid: the available levels; it must hold those the head needs, in any channels and strides.
        num_classes: classes without any background or ignored one, 1 or more; 0 for heads of targets without
            classes, such as depth.
        seed: the first weights follow from (seed, task, name) and no random state is left changed. None: they
            come from torch's global generator, as those of any module.
        settings: fields of `head_settings(name, task)` that differ from the preset's.

    Raises HeadError (a ValueError) for an unknown name, an unknown setting or value, or a level that is
    missing.
    """
    preset = head_preset(name, task)
    if num_classes < preset.has_classes:
        raise HeadError(f"num_classes is {num_classes}, expected {int(preset.has_classes)} or more")
    chosen = preset.settings_with(name, settings)
    levels = preset.levels_of(name, pyramid, chosen)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(initial_seed(seed, task, name))
        head = preset.build(pyramid.select(levels), num_classes, chosen)
    # Features arrive as channels_last; kernels in the same order spare a conversion in each step.
    return head.to(memory_format=torch.channels_last)


def levels_read(name: str, task: str, pyramid: PyramidSpec, **settings: Any) -> tuple[str, ...]:
    """The levels that a head reads of those available, without building it. Raises HeadError as
    `build_head`."""
    preset = head_preset(name, task)
    return preset.levels_of(name, pyramid, preset.settings_with(name, settings))


def head_settings(name: str, task: str) -> Any:
    """The preset's settings, a frozen dataclass of what `build_head` takes. Raises HeadError as it does."""
    return head_preset(name, task).settings


def head_preset(name: str, task: str) -> HeadPreset:
    """The preset of this name; imports its module alone. Raises HeadError, listing the valid names."""
    found = find_head(name, task)
    presets = _presets(found)
    if name not in presets or presets[name].task != task:
        raise HeadError(
            f"{found.origin} holds no head {name!r} for task {task!r}: its HEADS has "
            f"{', '.join(f'{key} ({preset.task})' for key, preset in presets.items()) or 'none'}"
        )
    return presets[name]


def _presets(found: HeadModule) -> dict[str, HeadPreset]:
    """HEADS of a module. Raises HeadError where that of another package cannot be imported."""
    try:
        presets: dict[str, HeadPreset] = getattr(import_module(found.module), "HEADS", {})
    except ImportError as error:
        if found.package is None:
            raise
        raise HeadError(
            f"{found.origin} cannot be imported: {error}; install what it needs, or uninstall {found.package}"
        ) from error
    return presets
