"""Extraction: data sets, views, frozen backbones and the pipeline that fills a store. Never imports heads.

Names resolve on first use, so that listing data sets loads no backbone.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "BackboneCard": "extract.backbones.registry",
    "FrozenBackbone": "extract.backbones.frozen",
    "backbone_card": "extract.backbones.registry",
    "backbone_names": "extract.backbones.registry",
    "build_plan": "extract.planning.plan",
    "build_trunk": "extract.backbones.loading",
    "dataset_names": "extract.datasets",
    "estimate_plan": "extract.planning.plan",
    "load_backbone": "extract.backbones.loading",
    "open_dataset": "extract.datasets",
    "view_recipe": "extract.datasets",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'extract' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
