"""Which levels a linear probe reads of those that a store holds.

Names as in stores.pyramid: `cls<i>` and `avg<i>` are the class token and the mean of the patch tokens of a
plain ViT's block i, with `n` behind them after the model's last norm; `avg` is the mean of a Swin's normed
last stage, `pooled` a model's own pooling; any other level is a map, of which the head takes the mean.
"""

from __future__ import annotations

import re

from heads.errors import HeadError
from heads.last_map import last_map
from stores.pyramid import PyramidSpec

FEATURES = ("auto", "cls", "avg", "cls+avg", "pooled", "map")
"""auto: the first that there is of cls, avg, pooled and map."""
_TOKEN = re.compile(r"(cls|avg)(\d+)(n?)")


def probe_levels(pyramid: PyramidSpec, feature: str, blocks: int) -> tuple[str, ...]:
    """The levels that a probe reads, in pyramid order.

    Args:
        pyramid: the available levels.
        feature: one of FEATURES.
        blocks: of how many last blocks class tokens are taken.

    Raises HeadError, naming the available levels, where they are not there.
    """
    if feature == "auto":
        feature = next(each for each in ("cls", "avg", "pooled", "map") if _found(pyramid, each, blocks))
    chosen = set(_found(pyramid, feature, blocks))
    if not chosen:
        wanted = f"{feature} of {blocks} blocks" if blocks > 1 else feature
        raise HeadError(
            f"no level for feature {wanted}; available: {', '.join(pyramid.names)}; choose another "
            "--head-settings.feature, or extract with more --levels"
        )
    return tuple(name for name in pyramid.names if name in chosen)


def _found(pyramid: PyramidSpec, feature: str, blocks: int) -> list[str]:
    """The levels of a feature; none where one is missing."""
    names = pyramid.names
    if feature == "cls+avg":
        both = _found(pyramid, "cls", blocks), _found(pyramid, "avg", 1)
        return [*both[0], *both[1]] if all(both) else []
    if feature == "pooled":
        return [name for name in names if name == "pooled"]
    if feature == "map":
        return list(last_map(pyramid))
    if feature == "avg" and "avg" in names:
        return ["avg"]
    tokens = _last_blocks(names, feature)
    return tokens[:blocks] if len(tokens) >= (blocks if feature == "cls" else 1) else []


def _last_blocks(names: tuple[str, ...], kind: str) -> list[str]:
    """The levels of a token by block, the last block first; of one block the normed level."""
    by_block: dict[int, str] = {}
    for name in names:
        found = _TOKEN.fullmatch(name)
        if found and found[1] == kind and (found[3] or int(found[2]) not in by_block):
            by_block[int(found[2])] = name
    return [by_block[block] for block in sorted(by_block, reverse=True)]
