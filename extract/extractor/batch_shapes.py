"""Batch sizes by bin: as many rows as the device's memory holds.

On a GPU the shape of a batch can change the last bits of its rows, so each bin has one shape from its first
row to its last. It is found by trying before anything is written; should the memory not suffice later, all
shapes are halved as long as no shard is finished.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch

from extract.backbones.cuda_graphs import PLAIN_CALLS
from extract.backbones.out_of_memory import is_out_of_memory, reason
from extract.extractor.codec_error import sample_cells
from extract.extractor.encode_batch import Backbone, assemble, encode_batch, view_shape
from stores.errors import PlanError
from stores.format.plan import Bin, ShardId, StorePlan
from stores.writing.writer import StoreWriter

logger = logging.getLogger(__name__)

BATCHES_IN_FLIGHT = 3
"""Batches launched and not yet on the host: more would only take memory."""
_BATCHES_TRIED = max(BATCHES_IN_FLIGHT, PLAIN_CALLS + 2)
"""Launched one after another, as an extraction does: the plain ones, the one that is recorded, a replay."""


class BatchTooLarge(MemoryError):
    """The device's memory does not hold a batch, and its shape cannot change (any more)."""

    resumable = False
    """Whether the same command resumes the store once memory is free."""


def shape_matters(device: torch.device) -> bool:
    """Whether the shape of a batch can change its rows' numbers: a GPU picks its kernels by it. On a CPU a
    frozen backbone takes rows one by one."""
    return device.type != "cpu"


def fit_batches(plan: StorePlan, backbone: Backbone) -> StorePlan:
    """The plan with batches that the device's memory holds, by trying; on a CPU as it is.

    Memory follows a batch's pixels, so the bin with the most is tried, filled with empty images, and halved
    until it passes; the others are cut to as many pixels.

    Raises BatchTooLarge where one row is too much.
    """
    if not shape_matters(backbone.device):
        return plan
    while True:
        index = max(range(len(plan.bins)), key=lambda i: _batch_pixels(plan.bins[i]))
        problem = _try_batch(plan, index, backbone)
        if problem is None:
            return plan
        plan = replace(plan, bins=halved(plan.bins, index, problem))
        b = plan.bins[index]
        logger.info("a batch of %s px does not fit the device's memory: %d rows", b.name, b.batch_rows)


def try_sizes(plan: StorePlan, backbone: Backbone) -> None:
    """Sends one empty image of the smallest and of the largest bin through the backbone.

    Raises:
        SizeRefused: the backbone was made for images of another size; see extract.backbones.timm_pyramid.
        BatchTooLarge: one is too much for the device's memory.
    """
    by_area = sorted(range(len(plan.bins)), key=lambda index: _pixels(plan.bins[index]))
    for index in {by_area[0], by_area[-1]}:
        sampled = sample_cells(plan, ShardId(index, 0), [0])
        try:
            encode_batch(
                backbone, plan, assemble([None], view_shape(plan, index), sampled, backbone.device)
            ).wait()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise _too_large(plan.bins[index], str(error)) from error


def halved(bins: Sequence[Bin], index: int, problem: str) -> tuple[Bin, ...]:
    """The bins with half the rows in a batch of the one at `index`, and no batch of more pixels than that.

    Raises BatchTooLarge where it has one row; `problem` is the device's message.
    """
    rows = bins[index].batch_rows or 1
    if rows == 1:
        raise _too_large(bins[index], problem)
    limit_px = rows // 2 * _pixels(bins[index])
    return tuple(replace(b, batch_rows=max(1, min(b.batch_rows or 1, limit_px // _pixels(b)))) for b in bins)


def _too_large(b: Bin, problem: str) -> BatchTooLarge:
    return BatchTooLarge(
        f"one row of {b.name} px does not fit the device's memory ({reason(problem)}): choose a smaller "
        "backbone or smaller views, or --device cpu"
    )


def _try_batch(plan: StorePlan, index: int, backbone: Backbone) -> str | None:
    """Sends batches of empty images through backbone and codec; what the device said if it did not fit.

    The tensors of a batch that failed are gone when this returns: nothing keeps the error.
    """
    b = plan.bins[index]
    rows = [None] * (b.batch_rows or 1)
    sampled = sample_cells(plan, ShardId(index, 0), range(len(rows)))
    try:
        encoded = [
            encode_batch(backbone, plan, assemble(rows, view_shape(plan, index), sampled, backbone.device))
            for _ in range(_BATCHES_TRIED)
        ]
        encoded[-1].wait()
    except torch.OutOfMemoryError as error:
        problem = str(error)
    else:
        return None
    _free_cached_memory(backbone.device)
    return problem


def halve_batches(writer: StoreWriter, index: int, problem: str, device: torch.device) -> None:
    """Plans batches of half the size for a store that was begun, after one of bin `index` did not fit.

    Raises BatchTooLarge where shards are finished, or the batch had one row.
    """
    _free_cached_memory(device)
    b = writer.plan.bins[index]
    if finished := writer.finished():
        stopped = BatchTooLarge(
            f"a batch of {b.batch_rows} rows of {b.name} px does not fit the device's memory any more "
            f"({reason(problem)}). {len(finished)} shards are finished with batches of this shape, and "
            "another could change the last bits of a row. Free memory on the device"
        )
        stopped.resumable = True
        raise stopped
    bins = halved(writer.plan.bins, index, problem)
    logger.warning(
        "a batch of %s rows of %s px does not fit the device's memory; continuing with %s",
        *(b.batch_rows, b.name, bins[index].batch_rows),
    )
    try:
        writer.set_batch_rows([each.batch_rows or 1 for each in bins])
    except PlanError as error:  # another process works with the present shape, or has finished a shard
        stopped = BatchTooLarge(f"{error}, or free memory on the device")
        stopped.resumable = True
        raise stopped from error


def _free_cached_memory(device: torch.device) -> None:
    """Frees the cached blocks of a failed attempt: smaller batches cannot use them."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _pixels(b: Bin) -> int:
    return b.height_px * b.width_px


def _batch_pixels(b: Bin) -> int:
    return _pixels(b) * (b.batch_rows or 1)
