"""Usual heads of a task: those that `plan` forecasts and the next steps name, if none is given."""

from __future__ import annotations

from heads import head_names

USUAL_HEADS = {
    "segmentation": ("linear", "bifpn1"),
    "detection": ("fpn", "bifpn1"),
    "video": ("linear", "global4"),
}


def usual_heads(task: str) -> tuple[str, ...]:
    """A small and a larger head; of a task of another package its first two."""
    return USUAL_HEADS.get(task, head_names(task)[:2])
