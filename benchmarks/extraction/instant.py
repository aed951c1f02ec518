"""An extraction whose sources and features take no time: what is left is the way from the device to the disk.

Everything else is the real thing: batches that are assembled ahead, the threads of shards, receipts, commit.
"""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import extract.extractor.run
from benchmarks.machine import processor_seconds
from extract.codecs.on_device import fitted_to_noise
from extract.extractor.encode_batch import HostBatch, HostPixels, view_shape
from extract.extractor.memory import encoded_row_bytes
from extract.extractor.row_loader import LoadedRow
from pipelines.forecast.disk_probe import Written, made_rows
from stores.format.plan import StorePlan
from stores.writing.writer import StoreWriter


def extract_instantly(plan: StorePlan, root: Path) -> Written:
    """Fills a store of one bin and no targets with made features, and commits it; times all of it."""
    plan = fitted_to_noise(plan)
    b, made = plan.bins[0], made_rows(plan, 0)
    pixels = np.zeros((*view_shape(plan, 0), 3), np.uint8)
    row = LoadedRow(pixels=pixels, valid_hw=(b.height_px, b.width_px), targets={}, source_sha256=bytes(32))
    loader = SimpleNamespace(load_views=lambda rows: dict.fromkeys(rows, row), source_of=None)
    backbone: Any = SimpleNamespace(device=torch.device("cpu"), pyramid=plan.pyramid)
    dataset: Any = SimpleNamespace(records=plan.rows.keys, subset=None)
    numbers, total = count(), len(next(iter(made.finite.values())))

    def encode(_: Any, __: StorePlan, batch: HostPixels) -> HostBatch:
        size = len(batch.pixels)
        first = next(numbers) * size % max(1, total - size + 1)
        return _rows(made, slice(first, first + size))

    writer = StoreWriter.open_or_create(root, plan, needed_bytes=0)
    run = extract.extractor.run
    with patch.object(run, "RowLoader", lambda *_, **__: loader), patch.object(run, "encode_batch", encode):
        began, used = time.perf_counter(), processor_seconds()
        run.extract(dataset, plan, backbone, writer, workers=1)
        took = time.perf_counter() - began, processor_seconds() - used
    return Written(b.rows * encoded_row_bytes(plan, b), *took)


def _rows(made: HostBatch, some: slice) -> HostBatch:
    return HostBatch(
        levels={
            level: {name: tensor[some] for name, tensor in parts.items()}
            for level, parts in made.levels.items()
        },
        finite={level: ok[some] for level, ok in made.finite.items()},
        holds={level: ok[some] for level, ok in made.holds.items()},
        sample={level: (x[some], decoded[some]) for level, (x, decoded) in made.sample.items()},
        copied=None,
    )
