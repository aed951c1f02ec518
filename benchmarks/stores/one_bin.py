"""Rows of made stores, all of one padded size without padding."""

from __future__ import annotations

import numpy as np

from stores.format.row_table import RowTable


def rows_of_one_bin(rows: int, side_px: int, *, params: int = 0, digits: int = 8) -> RowTable:
    """One view of each of `rows` square images.

    Args:
        params: view parameters, all 0.
        digits: of a key.
    """
    hw = np.full((rows, 2), side_px, np.int32)
    return RowTable(
        keys=tuple(f"{row:0{digits}}" for row in range(rows)),
        view=np.zeros(rows, np.int32),
        params=np.zeros((rows, params)),
        bin=np.zeros(rows, np.int32),
        padded_hw=hw,
        valid_hw=hw,
        original_hw=hw,
    )
