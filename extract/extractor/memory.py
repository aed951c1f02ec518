"""Upper bound of the host memory that an extraction's rows take."""

from __future__ import annotations

import numpy as np

from extract.extractor.batch_loader import ASSEMBLED_BATCHES, DEFAULT_BATCH_ROWS, rows_ahead
from extract.extractor.batch_order import views_at_once
from extract.extractor.shard_job import held_batches
from stores.format.plan import Bin, StorePlan, feature_row_bytes


def memory_bound(plan: StorePlan, workers: int, batch_rows: int | None = None) -> int:
    """The most bytes that rows take between decoder and disk, of whichever bin takes most.

    What decoder, backbone and operating system need on their way is not counted.

    Args:
        plan: of the store.
        workers: threads that load rows.
        batch_rows: rows of a forward pass in bins whose plan does not say it.
    """
    originals = plan.rows.original_hw.astype(np.int64).prod(axis=1)
    keeps_original = any(target.name == "original_labels" for target in plan.targets)
    bounds = []
    for index, b in enumerate(plan.bins):
        batch = b.batch_rows or batch_rows or DEFAULT_BATCH_ROWS
        original = int(originals[plan.bin_rows[index]].max()) if keeps_original else 0
        pixels = 3 * (plan.frames or 1) * b.height_px * b.width_px  # RGB
        loaded = pixels + b.height_px * b.width_px + original  # and labels
        held = held_batches(plan) * batch
        ahead = rows_ahead(batch, workers, views_at_once(plan))
        assembled = ASSEMBLED_BATCHES * batch * pixels
        bounds.append((ahead + held) * loaded + assembled + held * encoded_row_bytes(plan, b))
    return max(bounds)


def encoded_row_bytes(plan: StorePlan, b: Bin) -> int:
    """Features and scales of a row of the bin."""
    levels = feature_row_bytes(plan.pyramid, plan.codec, b.height_px, b.width_px, plan.frames)
    return sum(levels.values()) + (plan.frames or 1) * sum(4 * level.channels for level in plan.pyramid)
