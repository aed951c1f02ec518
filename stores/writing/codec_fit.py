"""The sample that a codec is fitted to: which rows and cells, the same for an extraction and a conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.codecs.contract import Codec, FittedCodec, State
from stores.format.arrays import sharded_arrays
from stores.format.plan import StorePlan
from stores.format.size_estimate import level_estimate
from stores.shards.zstd_frames import encode_frame

FIT_ROWS = 256
"""The first in the order of the hash of their keys, view by view of each record."""
FIT_VALUES = 1 << 26
"""Most values of a level, 256 MB of float32: 16,384 cells of 4096 channels."""
_REVISION = 1
"""Raised whenever the same sample is fitted to otherwise."""


def fit_rule(made: Codec) -> dict[str, Any]:
    """The field of an identity that says what the codec is fitted to; empty for codecs without a state."""
    if not isinstance(made, FittedCodec):
        return {}
    return {"fit": {"rows": FIT_ROWS, "values": FIT_VALUES, "revision": _REVISION}}


def cell_step(cells: int, channels: int) -> int:
    """Every which cell of a map is taken, so that FIT_ROWS such maps hold at most FIT_VALUES.

    >>> cell_step(128 * 128, 128), cell_step(64 * 64, 4096)
    (8, 64)
    """
    return -(-cells // max(1, FIT_VALUES // (FIT_ROWS * channels)))


def fitted_to(made: FittedCodec, cells: Mapping[str, Sequence[npt.NDArray[np.float32]]]) -> dict[str, State]:
    """The state of each level from the cells (K, channel) of each row."""
    return {level: made.fit(np.concatenate(rows)[None, :, None]) for level, rows in cells.items()}


def stored_shares(
    made: Mapping[str, Codec], rows: Sequence[Mapping[str, npt.NDArray[np.float32]]]
) -> dict[str, float]:
    """Stored over decoded bytes of each level's codes: 1 where the codec does not compress.

    Args:
        made: the codec of each level, fitted.
        rows: features of some rows by level, whole maps ([time,] y, x, channel).
    """
    found = {}
    for level, codec in made.items():
        parts = codec.parts(rows[0][level].shape[-1])
        stored = raw = 0
        for row in rows:
            for kind, array in codec.encode(row[level]).items():
                part = parts[kind]
                data = np.moveaxis(array, -1, -3) if part.channel_first else array
                flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
                raw += flat.nbytes
                stored += flat.nbytes if part.zstd_level is None else len(encode_frame(flat, part.zstd_level))
        found[level] = stored / raw
    return found


MARGIN = 1.1
"""Of an estimate from sample rows, over what they take."""


def expected_bytes(plan: StorePlan, shares: Mapping[str, float]) -> int:
    """Bytes of the store on the disk by the shares of its levels, with a margin."""
    bound = sum(level_estimate(plan, index) for index in range(len(plan.bins)))
    levels = sum(
        plan.bins[index].rows * spec.stored_row_bytes * min(1.0, MARGIN * shares[name.split("/")[1]])
        for index in range(len(plan.bins))
        for name, spec in sharded_arrays(plan, index).items()
        if name.startswith("levels/")
    )
    return plan.total_bytes - bound + int(levels)
