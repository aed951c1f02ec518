"""Codec error: measured on sample cells, recorded in receipts; `--codec-limit` enforces a maximum."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from extract.extractor.encode_batch import HostBatch
from stores.codecs import codec
from stores.codecs.contract import error_figures
from stores.errors import CodecError
from stores.format.plan import ShardId, StorePlan

logger = logging.getLogger(__name__)

WARN_MEDIAN, WARN_WORST = 0.02, 0.10
"""Errors of the median and the worst channel above which a warning is logged, relative to the standard
deviation of the channel. A live bf16 backbone errs by 0.007 to 0.019."""
_SPREAD_OF_SHARDS = 0.25
"""By which the error of a shard may exceed what a codec promises of all rows: its channels vary less."""
SAMPLE_VALUES = 1 << 18
"""Values of a level that are measured in a shard, at most, spread over all its rows: 5 to 10 ms of a core."""
SAMPLE_SHARE = 1 / 512
"""Of a shard's values, as far as this is no fewer than SAMPLE_CELLS: writing them takes 15 times as long."""
SAMPLE_CELLS = 128
FEWEST_CELLS = 64
"""With fewer cells a standard deviation is unreliable: errors are recorded, but compared with no limit."""

Figures = dict[str, dict[str, float]]
Cells = npt.NDArray[np.float32]


_SPREAD = (1779033703, 2654435769)
"""2**32 times sqrt(2) - 1, and over the golden ratio: multiples of either modulo 2**32 are spread evenly
however many are taken."""


def sample_cells(plan: StorePlan, shard: ShardId, positions: Sequence[int]) -> dict[str, Tensor]:
    """Which cells of some rows of a shard are measured, by level.

    Each row begins at another cell, so that small maps are sampled everywhere too.

    Args:
        positions: of the rows within the shard.

    Returns:
        int64 (rows, K) on the CPU: numbers of different cells of a row, counted through frames, rows and
        columns; K is 1 or more.
    """
    b, rows = plan.bins[shard.bin], len(plan.shard_rows(shard))
    down, across = (torch.tensor(positions, dtype=torch.int64) * spread % (1 << 32) for spread in _SPREAD)
    found = {}
    for level in plan.pyramid:
        lines, columns = (plan.frames or 1) * level.cells(b.height_px), level.cells(b.width_px)
        cells = lines * columns
        values = rows * cells * level.channels
        wanted = max(SAMPLE_CELLS * level.channels, min(SAMPLE_VALUES, int(values * SAMPLE_SHARE)))
        step = -(-values // wanted)
        while math.gcd(step, columns) > 1:  # so that columns take turns
            step += 1
        along = torch.arange(max(1, cells // step)) * step
        starts = (down * lines >> 32) * columns + (across * columns >> 32)
        found[level.name] = (starts[:, None] + along) % cells
    return found


class CodecErrors:
    """Collects the sample cells of a shard."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._cells: dict[str, list[tuple[Cells, Cells]]] = {}

    def add(self, batch: HostBatch, indices: list[int]) -> None:
        """The rows at `indices` of a batch are stored."""
        for level, (x, decoded) in batch.sample.items():
            self._cells.setdefault(level, []).append((x[indices].numpy(), decoded[indices].numpy()))

    def figures(self, shard_name: str) -> Figures:
        """By level: `median` and `worst` over channels, `worst_channel`, and how many `cells` were measured.

        Raises CodecError where a level's median exceeds the limit, or its worst channel five times the limit:
        the proportion of the two warnings.
        """
        found: Figures = {}
        for level, parts in self._cells.items():
            x, decoded = (
                np.concatenate(half).reshape(-1, half[0].shape[-1]) for half in zip(*parts, strict=True)
            )
            if len(x):
                found[level] = {**error_figures(x, decoded), "cells": float(len(x))}
            if len(x) and self._limit is not None and _exceeds(found[level], self._limit):
                raise CodecError(
                    f"{shard_name}: {_described(level, found[level])}; the limit is {self._limit:.1%} and "
                    f"{self._limit * WARN_WORST / WARN_MEDIAN:.1%}; try the codec float16"
                )
        return found


def _exceeds(found: dict[str, float], limit: float) -> bool:
    is_large = found["median"] > limit or found["worst"] > limit * WARN_WORST / WARN_MEDIAN
    return found["cells"] >= FEWEST_CELLS and is_large


class CodecWarnings:
    """Logs one warning a level, for its first shard above the usual error."""

    def __init__(self, codec_name: str) -> None:
        """Args: codec_name: one that promises an error, such as q5, is warned of above that."""
        promised = getattr(codec(codec_name), "error", 0.0)
        self._limit = max(WARN_MEDIAN, (1 + _SPREAD_OF_SHARDS) * promised)
        self._warned: set[str] = set()

    def look_at(self, figures: Figures, shard_name: str) -> None:
        for level, found in figures.items():
            if level not in self._warned and _exceeds(found, self._limit):
                self._warned.add(level)
                logger.warning(
                    "%s: %s; above %.2g %% and %.2g %% heads may lose accuracy: compare with float16",
                    *(shard_name, _described(level, found)),
                    *(100 * self._limit, 100 * self._limit * WARN_WORST / WARN_MEDIAN),
                )


def _described(level: str, found: dict[str, float]) -> str:
    return (
        f"the codec changes {level} by {found['median']:.1%} of the standard deviation in the median channel "
        f"and {found['worst']:.1%} in channel {found['worst_channel']:.0f}"
    )
