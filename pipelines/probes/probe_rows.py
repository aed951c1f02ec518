"""Rows of a store as one matrix of pooled features with their labels, for probes.

Letters in array names: N rows, C channels of all levels, T frames, y x cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heads.classification.feature_levels import probe_levels
from heads.errors import HeadError
from pipelines.errors import UsageError
from pipelines.feed.joined_stores import RowIndex, labels_of
from pipelines.feed.row_order import rows_of_subset
from stores.pyramid import Level, PyramidSpec
from stores.reading.reader import Store

Matrix = npt.NDArray[np.float32]
_BLOCK_BYTES = 64 << 20  # 64 MiB decoded at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeRows:
    """What a probe sees of a store."""

    x_NC: Matrix
    labels_N: npt.NDArray[np.int64]
    keys: tuple[str, ...]
    """Of each row, its record; views of a record share one."""

    @property
    def values(self) -> int:
        return self.x_NC.size


def chosen_levels(pyramid: PyramidSpec, feature: str, blocks: int, where: str) -> tuple[str, ...]:
    """The levels that a probe reads. Raises UsageError, naming the store, where they are not there."""
    try:
        return probe_levels(pyramid, feature, blocks)
    except HeadError as error:
        raise UsageError(f"{error} ({where})") from None


def read_rows(store: Store, levels: Sequence[str], target: str, subset: str | None = None) -> ProbeRows:
    """The rows of a store, in its order, without those outside a subset.

    Args:
        levels: whose pooled features are concatenated.
        target: that holds the labels: label, or original_label of a test store.

    Raises UsageError where the store has no labels.
    """
    if target not in store.targets:
        raise UsageError(
            f"{store.path} holds no {target}: probes are of classification and videos; it holds "
            f"{', '.join(store.targets) or 'no targets'}"
        )
    index = RowIndex(keys=store.keys, views=store.views, labels=lambda: labels_of(store, target))
    wanted = rows_of_subset(index, subset)
    chosen = [store.pyramid[level] for level in levels]
    x_NC = np.empty((len(wanted), sum(level.channels for level in chosen)), np.float32)
    labels_N = np.empty(len(wanted), np.int64)
    for places in _blocks(store, wanted, chosen):
        rows = wanted[places]
        features = store.read_features(rows, levels)
        sizes = store.valid_hw[rows]
        parts = [pooled(features[level.name], level, sizes) for level in chosen]
        x_NC[places] = np.concatenate(parts, axis=1)
        labels_N[places] = [int(found[target]) for found in store.read_targets(rows, (target,))]
    return ProbeRows(x_NC=x_NC, labels_N=labels_N, keys=tuple(store.keys[row] for row in wanted))


def pooled(x: Matrix, level: Level, valid_hw: npt.NDArray[np.int32]) -> Matrix:
    """float32 (N, C): the mean over frames and over the cells that show the image.

    Args:
        x: (N, [T,] C, y, x).
        valid_hw: of each row, in pixels.
    """
    if level.is_pooled or len({(int(y), int(x)) for y, x in valid_hw}) == 1:
        y, width = level.cells(int(valid_hw[0][0])), level.cells(int(valid_hw[0][1]))
        mean: Matrix = x[..., :y, :width].mean((-2, -1), dtype=np.float64).astype(np.float32)
    else:
        cells = [(level.cells(int(y)), level.cells(int(x))) for y, x in valid_hw]
        mean = np.stack(
            [row[..., :y, :width].mean((-2, -1)) for row, (y, width) in zip(x, cells, strict=True)]
        )
    return mean.mean(1) if mean.ndim == 3 else mean


def _blocks(
    store: Store, rows: npt.NDArray[np.int64], levels: Sequence[Level]
) -> Iterator[npt.NDArray[np.int64]]:
    """Places among `rows` that are read together: of one bin, a bounded number of bytes."""
    sizes, frames = store.padded_hw[rows], store.plan.frames or 1
    for height, width in np.unique(sizes, axis=0):
        values = sum(lv.channels * lv.cells(int(height)) * lv.cells(int(width)) for lv in levels)
        at_once = max(1, _BLOCK_BYTES // (4 * frames * values))
        places = np.flatnonzero((sizes == (height, width)).all(1))
        yield from (places[start : start + at_once] for start in range(0, len(places), at_once))
