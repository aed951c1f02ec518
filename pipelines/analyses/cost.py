"""Cost of an analysis, printed before it starts; where it exceeds two minutes, fewer rows are taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from pipelines.units import giga, gigabytes, rough_duration

LIMIT_S = 120.0
FEWEST_ROWS = 64
"""An analysis is never cut below, however long it takes."""
_PROBE = (256, 4096)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Of an analysis of a number of rows."""

    multiply_adds: Callable[[int], float]
    bytes_read: Callable[[int], float]
    seconds: Callable[[int], float]


def announced_rows(wanted: int, cost: Cost) -> int:
    """The rows that are taken; prints what they cost, and that they are fewer where they are.

    Args:
        wanted: rows asked for, or as many as exist.
    """
    rows = affordable_rows(wanted, cost.seconds)
    size = f"{giga(round(cost.multiply_adds(rows)))} multiply-adds, {gigabytes(round(cost.bytes_read(rows)))}"
    print(f"cost: {rows} rows, {size} read, about {rough_duration(cost.seconds(rows))}", flush=True)
    if rows < wanted:
        print(
            f"rows lowered from {wanted} to {rows}: all would take about "
            f"{rough_duration(cost.seconds(wanted))}, more than {rough_duration(LIMIT_S)}",
            flush=True,
        )
    return rows


def affordable_rows(wanted: int, seconds: Callable[[int], float], limit_s: float = LIMIT_S) -> int:
    """The most rows, up to those wanted, within the limit; never fewer than FEWEST_ROWS.

    >>> affordable_rows(512, lambda rows: rows / 2, 120), affordable_rows(512, lambda rows: rows, 10)
    (240, 64)
    """
    low, high = min(wanted, FEWEST_ROWS), wanted
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if seconds(middle) <= limit_s else (low, middle - 1)
    return low


@cache  # of this machine, once a process
def products_a_second() -> float:
    """Multiply-adds a second of a float64 product, measured once."""
    x = np.ones(_PROBE)
    x @ x.T
    began = time.perf_counter()
    x @ x.T
    return _PROBE[0] ** 2 * _PROBE[1] / max(1e-6, time.perf_counter() - began)
