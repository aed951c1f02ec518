"""Packed arrays: what is small in a row of many work units stands together in few shard files.

A work unit has shard files of its own of all that is large: codes of levels, pixels, targets of large rows.
The rest of its rows waits in one spool file until the commit, which writes rows of many units to one shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stores.format.array_spec import CRC_BYTES
from stores.format.targets import DenseTarget, RaggedTarget, Target

MOST_ROWS = 65_536
"""Rows of a packed shard."""
MOST_BYTES = 512 << 20
"""512 MiB of uncompressed rows."""
LARGE_ROW_BYTES = 64 << 10
"""64 KiB: a target whose rows are larger on average keeps shards of its own."""
COMPRESSED_TARGETS = 1 / 16
"""Stored over raw size of targets, for estimates."""
CAP_OVER_AVERAGE = 8
"""Of targets of a free size: the largest row, which the plan holds, over the average, which it does not."""


class _Bin(Protocol):
    @property
    def height_px(self) -> int: ...
    @property
    def width_px(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def shard_rows(self) -> int: ...


def packed_shard_rows(rows: int, unit_rows: int, row_bytes: int) -> int:
    """Rows of a packed shard, a power of two: as many as a bin has, as far as the limits allow, and no fewer
    than those of a work unit.

    Args:
        rows: of the bin.
        unit_rows: S, of a work unit.
        row_bytes: of the largest uncompressed row among the packed arrays; 0 for none.

    >>> packed_shard_rows(118_287, 64, 4096), packed_shard_rows(20, 4, 4096)
    (65536, 32)
    >>> packed_shard_rows(10**6, 16, 16_384)
    16384
    """
    fitting = MOST_BYTES // (row_bytes + CRC_BYTES)
    most = 1 << (min(MOST_ROWS, max(1, fitting)).bit_length() - 1)
    return max(unit_rows, min(most, 1 << (rows - 1).bit_length()))


def targets_with_own_shards(
    targets: Sequence[Target], bins: Iterable[_Bin], original_hw: npt.NDArray[np.int32]
) -> tuple[str, ...]:
    """Names of the targets whose rows average above LARGE_ROW_BYTES, by an estimate of their stored size.

    Args: original_hw: of the rows, (rows, 2).
    """
    bins = list(bins)
    rows, found = sum(b.rows for b in bins), list[str]()
    for target in targets:
        if isinstance(target, DenseTarget):
            total = sum(b.rows * target.row_bytes(b.height_px, b.width_px) for b in bins)
        else:
            total = target.all_planned_bytes(original_hw)
        if isinstance(target, RaggedTarget) and -1 in target.shape:
            total //= CAP_OVER_AVERAGE
        if total * COMPRESSED_TARGETS > LARGE_ROW_BYTES * rows:
            found.append(target.name)
    return tuple(found)
