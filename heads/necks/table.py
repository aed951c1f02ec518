"""Necks by name: each file of this folder lists its own as NECKS = {name: Neck(...)}."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module

from torch import nn

import heads.necks
from heads.contract import HeadError, check_choice, check_int
from heads.necks.contract import NECK_NORMS, Neck


def neck_names() -> tuple[str, ...]:
    """Every name that the setting `neck` accepts, sorted.

    >>> {"bifpn", "fpn", "fpn-res"} <= set(neck_names())
    True
    """
    return tuple(sorted(_necks()))


def find_neck(name: str) -> Neck:
    """The neck of this name. Raises HeadError, listing the valid names, for another."""
    check_choice("neck", name, neck_names())
    return _necks()[name]


def check_neck(name: str, depth: int) -> None:
    """Raises HeadError for an unknown neck or a `neck_depth` it cannot have."""
    most = find_neck(name).max_depth
    if most == 1 and depth != 1:
        raise HeadError(f"neck_depth is {depth!r}, but neck {name} repeats nothing: expected 1")
    check_int(f"neck_depth of {name}", depth, 1, most)


def build_neck(
    name: str, in_channels: Sequence[int], width: int, *, depth: int, norm: str, extra_levels: int = 0
) -> nn.Module:
    """A neck by name; arguments and maps as BuildNeck's. Raises HeadError for values it cannot have."""
    check_neck(name, depth)
    check_choice("norm", norm, NECK_NORMS)
    return find_neck(name).build(in_channels, width, depth=depth, extra_levels=extra_levels, norm=norm)


@cache
def _necks() -> Mapping[str, Neck]:
    found: dict[str, Neck] = {}
    for module in pkgutil.iter_modules(heads.necks.__path__, "heads.necks."):
        necks: Mapping[str, Neck] = getattr(import_module(module.name), "NECKS", {})
        for name, neck in necks.items():
            if name in found:
                raise RuntimeError(f"{module.name} defines neck {name!r}, which another file defines too")
            found[name] = neck
    return found
