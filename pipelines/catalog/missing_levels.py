"""Whether levels missing from a store can be recomputed: they must be the backbone's first, and the views'
pixels available. Loads no backbone; pipelines/live/recompute_levels.py does the work."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pipelines.errors import UsageError
from stores.errors import LevelMissing
from stores.format.plan import StorePlan
from stores.pyramid import PyramidSpec

PixelsFrom = Literal["stored", "source"]


def lacking(needed: Sequence[str], stored: Sequence[str]) -> tuple[str, ...]:
    """The levels that are needed and not stored."""
    return tuple(level for level in needed if level not in stored)


def holds_pixels(identity: Mapping[str, Any]) -> bool:
    """Whether a store keeps the views' pixels."""
    return bool(identity.get("pixels"))


def lacks_first_levels(pyramid: PyramidSpec) -> bool:
    """Whether a store's levels are of a pyramid of stages and do not begin with the first stage's."""
    return any(map(_of_a_stage, pyramid.names)) and min(level.stage for level in pyramid) > 1


def are_shallower(missing: Sequence[str], stored: Sequence[str]) -> bool:
    """Whether every missing level comes before every stored one; only stages of a pyramid do.

    >>> are_shallower(("p2", "p3"), ("p4", "p5")), are_shallower(("p2", "p5"), ("p4",))
    (True, False)
    >>> are_shallower(("avg",), ("p5",))
    False
    """
    return (
        bool(stored) and all(map(_of_a_stage, [*missing, *stored])) and max(missing, default="") < min(stored)
    )


def _of_a_stage(name: str) -> bool:
    return re.fullmatch(r"p\dn?", name) is not None


def check_recomputable(
    plan: StorePlan, missing: Sequence[str], pixels: PixelsFrom | None, where: str
) -> PixelsFrom:
    """Where the pixels come from.

    Raises LevelMissing for levels that are no shallower than the stored ones, for videos, and without pixels
    asked for or stored; UsageError for stored pixels that are not there.
    """
    stored = plan.pyramid.names
    text = f"{where} lacks {', '.join(missing)}, which the head needs (it holds {', '.join(stored)})"
    if pixels == "stored" and not plan.pixels:
        raise UsageError(
            f"--pixels stored: {where} holds no pixels; extract with --pixels stored, or pass --pixels source"
        )
    if not are_shallower(missing, stored):
        raise LevelMissing(f"{text}: only levels shallower than all stored ones can be recomputed")
    if plan.frames is not None:
        raise LevelMissing(f"{text}: levels of videos cannot be recomputed")
    if pixels is None and not plan.pixels:
        raise LevelMissing(
            f"{text}: pass --pixels source and --data to recompute them from the source images"
        )
    return pixels or "stored"
