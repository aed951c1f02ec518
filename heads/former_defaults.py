"""Defaults of heads in earlier versions: what the settings of an old run mean today.

A run records the settings it was given and the revision of the head's other ones. Whoever changes a default
that changes a head adds what it was here; old runs then keep their heads. Without torch, for reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heads.errors import HeadError

_CASCADE = ({"box_head": "2fc", "border_anchors": True},)
"""Since revision 2: the box heads and the anchors of Swin's published configurations."""
FORMER_DEFAULTS: Mapping[tuple[str, str], tuple[Mapping[str, Any], ...]] = {
    ("detection", name): _CASCADE
    for name in ("cascade-fpn", "cascade-bifpn5", "htc-bifpn5", "htc-nosem-bifpn5")
}
"""By task and head: of each earlier revision, from 1, the settings whose defaults were others than now."""


def head_revision(name: str, task: str) -> int:
    """The revision of a head's defaults; 1 until one of them changes.

    >>> head_revision("fpn", "detection"), head_revision("cascade-fpn", "detection")
    (1, 2)
    """
    return len(FORMER_DEFAULTS.get((task, name), ())) + 1


def recorded_settings(name: str, task: str, given: Mapping[str, Any], revision: int) -> dict[str, Any]:
    """The settings of a run of `revision` that was given `given`, as they are to be given now.

    >>> recorded_settings("cascade-fpn", "detection", {"width": 128}, 1)
    {'box_head': '2fc', 'border_anchors': True, 'width': 128}
    >>> recorded_settings("cascade-fpn", "detection", {"width": 128}, 2)
    {'width': 128}

    Raises HeadError, naming the head, for a revision that this version does not know.
    """
    now = head_revision(name, task)
    if not 1 <= revision <= now:
        raise HeadError(
            f"head {name!r} is of revision {revision}, expected 1..{now}: the run was made by a later "
            "version; update this one"
        )
    former = FORMER_DEFAULTS[task, name][revision - 1] if revision < now else {}
    return {**former, **given}
