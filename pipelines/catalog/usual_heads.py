"""Usual heads of a task: those that `plan` forecasts and the next steps name, if none is given."""

from __future__ import annotations

import re
from collections.abc import Sequence

from heads import head_names

USUAL_HEADS = {
    "segmentation": ("linear", "bifpn1"),
    "detection": ("fpn", "bifpn1"),
    "video": ("linear", "global4"),
    "pose": ("pose-deconv2x32", "pose-deconv4x256"),
    "depth": ("depth-deconv2x32", "depth-linear"),
}
PLAIN_HEADS = {
    "segmentation": ("dino-linear", "simplefpn"),
    "detection": ("simplefpn", "cascade-simplefpn"),
    "depth": ("depth-linear", "depth-dpt"),
}
"""Of the maps of a plain ViT."""
_BLOCK = re.compile(r"b\d+n?")


def usual_heads(task: str, levels: Sequence[str] = ()) -> tuple[str, ...]:
    """A small and a larger head; of a task of another package its first two.

    Args:
        levels: names of those that the store holds; without any of a pyramid, but with maps of blocks, the
            heads are those of plain ViTs.

    >>> usual_heads("detection", ["p2", "p3"]), usual_heads("detection", ["b12n"])
    (('fpn', 'bifpn1'), ('simplefpn', 'cascade-simplefpn'))
    """
    of_blocks = any(map(_BLOCK.fullmatch, levels)) and not any(name.startswith("p") for name in levels)
    if of_blocks and task in PLAIN_HEADS:
        return PLAIN_HEADS[task]
    return USUAL_HEADS.get(task, head_names(task)[:2])
