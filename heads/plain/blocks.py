"""Block maps of a plain ViT among available levels: `b<i>`, and `b<i>n` after the backbone's last norm."""

from __future__ import annotations

import re

from heads.errors import HeadError
from stores.pyramid import Level, PyramidSpec

_BLOCK = re.compile(r"b(\d+)(n?)")


def is_normed(name: str) -> bool:
    """Whether a level has the backbone's last norm behind it.

    >>> is_normed("b12n"), is_normed("b12"), is_normed("p5")
    (True, False, False)
    """
    found = _BLOCK.fullmatch(name)
    return found is not None and bool(found[2])


def block_maps(pyramid: PyramidSpec) -> tuple[Level, ...]:
    """One map of each block that is there, in order; the normed one of a block where both are."""
    found: dict[int, Level] = {}
    for level in pyramid:
        parsed = _BLOCK.fullmatch(level.name)
        if parsed and (parsed[2] or int(parsed[1]) not in found):
            found[int(parsed[1])] = level
    return tuple(found[block] for block in sorted(found))


def last_block(pyramid: PyramidSpec, settings: object = None) -> tuple[str, ...]:
    """The last block's map. Raises HeadError where there is no map of a block."""
    blocks = block_maps(pyramid)
    if not blocks:
        raise HeadError(
            f"no map of a block of a plain ViT; available: {', '.join(pyramid.names)}; extract one with such "
            f"a MODEL= and LEVELS=b12n, or take a head without simplefpn in its name"
        )
    return (blocks[-1].name,)


def four_blocks(pyramid: PyramidSpec, settings: object = None) -> tuple[str, ...]:
    """The maps of four blocks. Raises HeadError for more or fewer of them."""
    names = tuple(level.name for level in block_maps(pyramid))
    if len(names) != 4:
        raise HeadError(
            f"needs the maps of exactly four blocks of a plain ViT, such as LEVELS=b3,b6,b9,b12 in "
            f"extraction or --levels of these in training; available: {', '.join(pyramid.names)}"
        )
    return names
