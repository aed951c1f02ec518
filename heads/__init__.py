"""Heads by name: one architecture a file; its presets stand in it as HEADS.

Imports torch, torchvision.ops, numpy, scipy and stores.pyramid only. Names are resolved when they are asked
for: `import heads` and `head_names` load no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heads.building import build_head, head_settings
    from heads.contract import Head, HeadPreset
    from heads.errors import HeadError
    from heads.index import head_names

_HOMES = {
    "build_head": "heads.building",
    "head_settings": "heads.building",
    "Head": "heads.contract",
    "HeadPreset": "heads.contract",
    "HeadError": "heads.errors",
    "head_names": "heads.index",
}

__all__ = ["Head", "HeadError", "HeadPreset", "build_head", "head_names", "head_settings"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
