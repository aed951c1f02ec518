"""The last map of any backbone, for heads that need no pyramid: p5n of a Swin, p5 of a CNN, b12n of a ViT."""

from __future__ import annotations

from typing import Any

from heads.errors import HeadError
from stores.pyramid import PyramidSpec


def last_map(pyramid: PyramidSpec) -> tuple[str, ...]:
    """The deepest level that is a map, after the backbone's norm where both are there; empty without one.

    >>> from stores.pyramid import Level
    >>> levels = [Level(name=n, stride_px=32, channels=8, stage=4) for n in ("p5", "p5n", "avg")]
    >>> last_map(PyramidSpec(tuple(levels)))
    ('p5n',)
    """
    maps = [level for level in pyramid if not level.is_pooled]
    if not maps:
        return ()
    deepest = max(level.stage for level in maps)
    last = [level.name for level in maps if level.stage == deepest]
    return (next((name for name in last if name.endswith("n")), last[-1]),)


def require_last_map(pyramid: PyramidSpec, settings: Any) -> tuple[str, ...]:
    """`last_map`, as `HeadPreset.choose`. Raises HeadError without one."""
    found = last_map(pyramid)
    if not found:
        raise HeadError(
            f"needs a map, such as the last one (--levels last); available: {', '.join(pyramid.names)}"
        )
    return found
