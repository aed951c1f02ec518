"""Names of dimensions that have one length in each group, and attributes that say how a level is decoded.

xarray refuses a group in which one dimension name has two lengths, as the bytes of a key and of a digest, and
one whose dimension has another length than in the group above it, as pixels and the cells of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stores.codecs import codec
from stores.format.targets import RaggedTarget, Target
from stores.pyramid import Level

PIXEL_DIMS = ("pixel_y", "pixel_x", "colour")
KEY_DIM, DIGEST_DIM = "key_byte", "digest_byte"
_OF_PARTS = {"block": "channel_block"}


def part_dim(kind: str, dim: str) -> str:
    """The last dimension of an array of a level; `dim` is the codec's name for it.

    >>> part_dim("block", "block"), part_dim("q", "channel")
    ('channel_block', 'channel')
    """
    return _OF_PARTS.get(kind, f"{kind}_{dim}" if kind == dim else dim)


def target_dims(target: Target) -> tuple[str, ...]:
    """The dimensions of a target after its rows.

    >>> from stores.format.targets import DenseTarget
    >>> target_dims(DenseTarget("labels", "uint8", ("y", "x"))), target_dims(DenseTarget("a", "int8", (4,)))
    (('y', 'x'), ('a_dim_0',))
    """
    if isinstance(target, RaggedTarget):
        return (f"{target.name}_byte",)
    names = (size if isinstance(size, str) else f"dim_{i}" for i, size in enumerate(target.shape))
    return tuple(name if name in ("y", "x") else f"{target.name}_{name}" for name in names)


def level_attributes(codec_name: str, level: Level, dims: Sequence[str]) -> dict[str, Any]:
    """Attributes of the codes `q` of a level."""
    by_name = f"by codec {codec_name}: open_store(path).read_features(rows)"
    return {
        "decode": getattr(codec(codec_name), "formula", by_name),
        "codec": codec_name,
        "level": level.name,
        "stride_px": level.stride_px,
        "stage": level.stage,
        "layout": ", ".join(dims),
    }
