"""Position embeddings of plain ViTs at other sizes: bicubic, with antialias (timm) or without (DINOv2)."""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import nn

_METHOD, _RESAMPLE = "_pos_embed", "resample_abs_pos_embed"


def resamples_positions(trunk: nn.Module) -> bool:
    """Whether timm resamples the model's position embeddings to the size of the image."""
    method = getattr(type(trunk), _METHOD, None)
    return (
        method is not None
        and _RESAMPLE in method.__globals__
        and hasattr(trunk, "dynamic_img_size")
        and getattr(trunk, "pos_embed", None) is not None
    )


def without_antialias(trunk: Any) -> None:
    """Makes a trunk resample its position embeddings as DINOv2 and transformers do.

    The method that adds them calls timm's function by a global name of its module; a copy of the method with
    that name bound anew changes this trunk alone.

    Raises ValueError for a trunk whose position embeddings are not resampled.
    """
    if not resamples_positions(trunk):
        raise ValueError(f"{type(trunk).__name__} resamples no position embeddings")
    method = getattr(type(trunk), _METHOD)
    names = {**method.__globals__, _RESAMPLE: partial(method.__globals__[_RESAMPLE], antialias=False)}
    rebound = FunctionType(method.__code__, names, method.__name__, method.__defaults__, method.__closure__)
    setattr(trunk, _METHOD, MethodType(rebound, trunk))
