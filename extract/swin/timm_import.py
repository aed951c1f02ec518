"""timm, imported without torch._dynamo, which takes a processor 1.2 s and is needed on a GPU alone.

torchvision imports it for one function of a fallback of roi_align, timm and torch itself to mark functions
that are not to be compiled. While a block of `without_dynamo` runs, a module stands in for it that has just
these; whoever wants anything else of it gets the real one.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

__all__ = [
    "SwinTransformer",
    "SwinTransformerBlock",
    "SwinTransformerV2",
    "SwinTransformerV2Block",
    "SwinTransformerV2Cr",
    "SwinTransformerV2CrBlock",
    "WindowAttention",
    "timm",
    "without_dynamo",
]

_DYNAMO, _UTILS = "torch._dynamo", "torch._dynamo.utils"


class _StandIn(ModuleType):
    """Some functions of a module; any other attribute is of the real one, which takes its place then."""

    def __init__(self, name: str, functions: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(name)
        vars(self).update(functions)

    def __getattr__(self, attribute: str) -> Any:
        is_import = attribute == "__path__" and self.__name__ == _DYNAMO  # of a module in the package
        if attribute.startswith("__") and not is_import:  # inspect asks every module for its file
            raise AttributeError(attribute)
        _give_way()
        return getattr(importlib.import_module(self.__name__), attribute)


def _give_way() -> None:
    """Takes the stand-ins away."""
    for name in (_UTILS, _DYNAMO):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]
    if isinstance(vars(torch).get("_dynamo"), _StandIn):
        del torch._dynamo


def _is_compile_supported(device_type: Any) -> Any:
    return importlib.import_module(_UTILS).is_compile_supported(device_type)


def _disabled_later(function: Any = None, *args: Any, **settings: Any) -> Any:
    """A decorator as torch._dynamo.disable, which is applied at the first call."""
    if function is None:
        return functools.partial(_disabled_later, **settings)
    disabled: list[Any] = []

    @functools.wraps(function)
    def late(*given: Any, **named: Any) -> Any:
        if not disabled:
            disabled.append(importlib.import_module(_DYNAMO).disable(function, *args, **settings))
        return disabled[0](*given, **named)

    return late


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Inside, what torch runs eagerly does not load torch._dynamo. For the main thread, before any other one
    compiles."""
    if _DYNAMO in sys.modules:
        yield
        return
    own: list[Any] = []

    def disable(function: Any = None, *args: Any, wrapping: bool = True, **settings: Any) -> Any:
        if wrapping:
            return _disabled_later(function, *args, **settings)
        own.append(function)  # torch keeps what it is given here as an attribute of its function
        return function

    dynamo = _StandIn(_DYNAMO, {"disable": disable})
    sys.modules[_DYNAMO] = torch._dynamo = dynamo
    sys.modules[_UTILS] = _StandIn(_UTILS, {"is_compile_supported": _is_compile_supported})
    try:
        yield
    finally:
        for function in own:
            vars(function).pop("__dynamo_disable", None)
        _give_way()


@contextmanager
def _without_wandb() -> Iterator[None]:
    """Inside, wandb cannot be imported: where it is installed, timm takes 0.5 s for it, to log a training of
    its own. `train-head --logger wandb` imports it later as ever."""
    if "wandb" in sys.modules:
        yield
        return
    sys.modules["wandb"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["wandb"]


with without_dynamo(), _without_wandb():
    import timm
    from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention
    from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
    from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr, SwinTransformerV2CrBlock
