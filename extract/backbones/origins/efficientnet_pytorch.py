"""EfficientNet-PyTorch's names of tensors (`_blocks.3._depthwise_conv`) as timm's (`blocks.2.0.conv_dw`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_BLOCK = re.compile(r"_blocks\.(\d+)\.(_[a-z_0-9]+)\.(.+)")
_STEM = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_EXPANDING = {
    **_SQUEEZE,
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {
    **_SQUEEZE,
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
"""Of blocks without an expansion, which timm builds of another class."""


def is_efficientnet(names: Iterable[str]) -> bool:
    """Whether a file has these names; one is enough.

    >>> is_efficientnet(["_conv_stem.weight"]), is_efficientnet(["conv_stem.weight"])
    (True, False)
    """
    return any(name.startswith(("_conv_stem.", "_blocks.")) for name in names)


def timm_names(names: Iterable[str], trunk: Any) -> Mapping[str, str]:
    """timm's name of every tensor; a name that is unknown stays as it is.

    Args: trunk: timm's model, whose blocks stand in stages; the files number them through.
    """
    names = list(names)
    expands = {found[1] for name in names if (found := _BLOCK.match(name)) and found[2] == "_expand_conv"}
    places = [
        f"blocks.{stage}.{block}"
        for stage, blocks in enumerate(getattr(trunk, "blocks", ()))
        for block in range(len(blocks))
    ]
    return {name: _renamed(name, places, expands) for name in names}


def _renamed(name: str, places: list[str], expands: set[str]) -> str:
    found = _BLOCK.fullmatch(name)
    if found is None:
        module, dot, rest = name.partition(".")
        return f"{_STEM[module]}{dot}{rest}" if module in _STEM else name
    number, module, rest = found.groups()
    known = _EXPANDING if number in expands else _SEPARABLE
    if int(number) >= len(places) or module not in known:
        return name
    return f"{places[int(number)]}.{known[module]}.{rest}"
