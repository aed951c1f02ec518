"""Rows of pooled vectors held in memory: read and checked once, then each batch is a selection.

A row of a few kilobytes takes longer to find in its shard than to copy; of ImageNet-1K and SwinV2-B all rows
of a view are 2.6 GB. Dims: N rows of a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from extract.codecs.on_device import level_codecs
from pipelines.feed.joined_stores import JoinedStores, Rows
from pipelines.feed.pace import Reading
from pipelines.feed.store_feed import Batch
from pipelines.feed.transfer import dequantise
from pipelines.machine.free_memory import available_bytes
from pipelines.tasks import Task
from pipelines.tasks.contract import targets_there
from stores.format.plan import feature_row_bytes
from stores.format.targets import DenseTarget

logger = logging.getLogger(__name__)

_SHARE = 0.5
"""Of the available memory that rows may take."""
_ROWS_AT_ONCE = 4096


def fit_in_memory(stores: JoinedStores, levels: Sequence[str], targets: Sequence[str]) -> bool:
    """Whether rows are small, pooled vectors and one number a target, and all of them fit into memory."""
    chosen, plan = stores.pyramid.select(levels), stores.plan
    numbers = {t.name for t in plan.targets if isinstance(t, DenseTarget) and not t.shape}
    if not all(level.is_pooled for level in chosen) or not set(targets) <= numbers:
        return False
    b = plan.bins[plan.bin_index(stores.bin)]
    row_bytes = sum(feature_row_bytes(chosen, plan.codec, b.height_px, b.width_px, plan.frames).values())
    return len(stores) * row_bytes < _SHARE * available_bytes()


class ResidentRows:
    """The rows of stores in memory, encoded as they are stored."""

    def __init__(self, stores: JoinedStores, levels: Sequence[str], task: Task) -> None:
        """Reads every row. Raises as `JoinedStores.read_encoded`."""
        self.stores, self.levels = stores, tuple(levels)
        names = targets_there(task, task.training_targets, stores.targets)
        arrays = stores.buffers(len(stores), levels)
        targets: list[dict[str, np.ndarray]] = []
        for start in range(0, len(stores), _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(stores)))
            place = slice(start, start + len(rows))
            out = {lv: {name: array[place] for name, array in parts.items()} for lv, parts in arrays.items()}
            stores.read_encoded(rows, self.levels, out)
            targets += [dict(task.head_targets(row)) for row in stores.read_targets(rows, names)]
        self.encoded = {
            level: {name: torch.from_numpy(array) for name, array in parts.items()}
            for level, parts in arrays.items()
        }
        self.targets = {
            name: torch.from_numpy(np.stack([row[name] for row in targets])) for name in targets[0]
        }
        self.bytes = sum(array.nbytes for parts in arrays.values() for array in parts.values())
        logger.info("%s: %d rows held in memory, %.1f MB", stores.describe(), len(stores), self.bytes / 1e6)


class ResidentFeed:
    """An iterator of the `Batch`es that StoreFeed gives, from rows in memory.

    Args:
        resident: the rows.
        row_batches: the rows of each batch.
        device: where batches are wanted.
    """

    def __init__(self, resident: ResidentRows, row_batches: Iterator[Rows], device: torch.device) -> None:
        self._rows, self._row_batches, self._device = resident, row_batches, device
        self._codecs = level_codecs(resident.stores.plan)
        self._batches = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        resident = self._rows
        rows = resident.stores.in_read_order(next(self._row_batches))
        chosen = torch.from_numpy(rows)
        features = {
            level: dequantise(
                self._codecs[level], {name: self._taken(t, chosen) for name, t in parts.items()}
            )
            for level, parts in resident.encoded.items()
        }
        columns = {name: self._taken(values, chosen).unbind() for name, values in resident.targets.items()}
        self._batches += 1
        return Batch(
            features=features,
            targets=[{name: column[place] for name, column in columns.items()} for place in range(len(rows))],
            valid_hw=resident.stores.valid_hw(rows),
            keys=resident.stores.keys(rows),
        )

    def _taken(self, values: Tensor, rows: Tensor) -> Tensor:
        return values.index_select(0, rows).to(self._device)

    @property
    def reading(self) -> Reading:
        """Batches so far; nothing was read for them."""
        return Reading(batches=self._batches)

    def close(self) -> None:
        """Nothing: no thread reads ahead."""
