"""The rows and bins of a store: view-major rows, one bin for each padded size.

Records stand in the order of a hash of their key for training splits, so that a run of rows is a random
sample and an epoch reads forward, and in the order of their keys for test splits. Records of one source, such
as the persons of an image, stand together, so that it is decoded once; training mixes them (stores.sampling).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from extract.datasets.contract import Dataset
from extract.views.view import Hw
from stores.format.plan import MAX_SHARD_ROWS, Bin, feature_row_bytes, shard_rows_for
from stores.format.row_table import RowTable
from stores.format.targets import DenseTarget, Target
from stores.pyramid import PyramidSpec
from stores.subsets import key_order

BATCH_AREA_PX = 512 * 512
"""Batch sizes are stated for views of this area; bins of larger ones or of clips take fewer rows."""


POOLED_SHARD_ROWS = 1 << 14
"""Most rows of a shard of pooled vectors by default: ImageNet-1K is 79 shards, and an interrupted extraction
loses at most so many images. `--shard-rows` sets up to 65,536."""


def is_pooled(pyramid: PyramidSpec, targets: Sequence[Target]) -> bool:
    """Whether a row is small: every level is one cell an image, and every target one number."""
    scalars = all(isinstance(target, DenseTarget) and not target.shape for target in targets)
    return all(level.is_pooled for level in pyramid) and scalars


def record_order(dataset: Dataset) -> list[int]:
    """Indices of the records in the order of their rows."""
    index_of = {record.key: index for index, record in enumerate(dataset.records)}
    if not dataset.is_training:
        return [index_of[key] for key in sorted(index_of)]
    of_source: dict[str, list[str]] = {}
    for record in dataset.records:
        of_source.setdefault(record.source or record.key, []).append(record.key)
    return [index_of[key] for source in key_order(of_source) for key in sorted(of_source[source])]


def row_table(dataset: Dataset, params: Sequence[npt.NDArray[np.float64]]) -> tuple[RowTable, list[Hw]]:
    """The rows in plan order, and the padded sizes of the bins.

    Args:
        dataset: its records.
        params: of each record float64 (V, P), one View.to_params a view; records may have several V.
    """
    order = record_order(dataset)
    counts = np.array([len(params[index]) for index in order])
    # View by view, and in each all records that have so many.
    views, records = np.nonzero(np.arange(counts.max())[:, None] < counts)
    first = np.cumsum(counts) - counts
    flat = np.concatenate([params[index] for index in order])[first[records] + views]
    original_hw = np.array([dataset.records[index].original_hw for index in order], dtype=np.int32)
    names = dataset.media.view_params
    padded_hw = _columns(flat, names, "padded_y", "padded_x")
    sizes, bins = np.unique(padded_hw, axis=0, return_inverse=True)
    rows = RowTable(
        keys=tuple(dataset.records[order[row]].key for row in records.tolist()),
        view=views.astype(np.int32),
        params=flat,
        bin=bins.reshape(-1).astype(np.int32),
        padded_hw=padded_hw,
        valid_hw=_columns(flat, names, "valid_y", "valid_x"),
        original_hw=original_hw[records],
    )
    return rows, [(int(height), int(width)) for height, width in sizes]


def _columns(params: npt.NDArray[np.float64], names: Sequence[str], *wanted: str) -> npt.NDArray[np.int32]:
    return params[:, [names.index(name) for name in wanted]].astype(np.int32)


def planned_bin(
    size_hw: Hw,
    rows: int,
    pyramid: PyramidSpec,
    *,
    frames: int | None,
    codec: str,
    pixels: bool,
    shard_rows: int | None,
    batch_rows: int,
    is_small: bool = False,
) -> Bin:
    """One bin; `is_small` as of `is_pooled`.

    A batch lies within a shard, so that what is extracted together never depends on which shards are done;
    it is as small as the shard where that is smaller than `batch_rows` at this size.
    """
    area_px = size_hw[0] * size_hw[1] * (frames or 1)
    row_bytes = [
        *feature_row_bytes(pyramid, codec, *size_hw, frames).values(),
        area_px * (3 if pixels else 1 if frames is None and not is_small else 0),
    ]
    most = POOLED_SHARD_ROWS if is_small else MAX_SHARD_ROWS
    s = shard_rows_for(max(row_bytes), rows, most) if shard_rows is None else shard_rows
    fitting = batch_rows * BATCH_AREA_PX // area_px
    return Bin(
        height_px=size_hw[0],
        width_px=size_hw[1],
        rows=rows,
        shard_rows=s,
        batch_rows=max(1, min(batch_rows, fitting, s, rows)),
    )
