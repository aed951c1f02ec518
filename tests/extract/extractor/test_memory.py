"""Memory of an extraction when the disk is slow and decoding is quick."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import extract.extractor.run
from extract.backbones.loading import FrozenBackbone
from extract.datasets import open_dataset
from extract.extractor.batch_loader import rows_ahead
from extract.extractor.encode_batch import HostBatch, encode_batch
from extract.extractor.memory import memory_bound
from extract.extractor.row_loader import LoadedRow, RowLoader
from extract.extractor.shard_job import ShardJob, held_batches
from tests.extract.datasets.made_ade20k import write_folder
from tests.extract.extractor.extraction import planned, run


class Live:
    """Counts the arrays that are alive, and the most that ever were."""

    def __init__(self) -> None:
        self.count = self.bytes = self.most = self.most_bytes = 0
        self._lock = threading.RLock()  # an array may be collected while another is counted

    def watch(self, array: Any, size: int) -> None:
        self._add(1, size)
        weakref.finalize(array, self._add, -1, -size)

    def _add(self, count: int, size: int) -> None:
        with self._lock:
            self.count, self.bytes = self.count + count, self.bytes + size
            self.most, self.most_bytes = max(self.most, self.count), max(self.most_bytes, self.bytes)


@pytest.mark.parametrize(("shard_rows", "batch_rows", "workers"), [(1, 1, 2), (2, 1, 1), (8, 2, 3)])
def test_a_slow_disk_does_not_fill_the_memory(
    tmp_path: Path,
    backbone: FrozenBackbone,
    monkeypatch: pytest.MonkeyPatch,
    shard_rows: int,
    batch_rows: int,
    workers: int,
) -> None:
    root = write_folder(tmp_path / "data", training=24, validation=1)
    views, batches = Live(), Live()
    load, write = RowLoader.load_views, ShardJob._write

    def watched_load(self: RowLoader, rows: Sequence[int]) -> Any:
        found = load(self, rows)
        for loaded in found.values():
            assert isinstance(loaded, LoadedRow)
            views.watch(loaded.pixels, loaded.pixels.nbytes + sum(t.nbytes for t in loaded.targets.values()))
        return found

    def watched_encode(*arguments: Any) -> HostBatch:
        batch = encode_batch(*arguments)
        parts = [tensor for level in batch.levels.values() for tensor in level.values()]
        batches.watch(parts[0], sum(tensor.nbytes for tensor in parts))
        return batch

    def slow_write(self: ShardJob, *arguments: Any) -> None:
        until = time.monotonic() + 20  # as slow as it must be for batches to wait, on a busy machine too
        while batches.most < 3 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.03)
        write(self, *arguments)

    monkeypatch.setattr(RowLoader, "load_views", watched_load)
    monkeypatch.setattr(extract.extractor.run, "encode_batch", watched_encode)
    monkeypatch.setattr(ShardJob, "_write", slow_write)
    choices = {"levels": ("p5",), "shard_rows": shard_rows, "batch_rows": batch_rows}
    run(root, tmp_path / "stores", backbone, workers=workers, **choices)
    plan = planned(open_dataset("ade20k", root, "training"), backbone, **choices)
    assert batches.most <= held_batches(plan)
    assert views.most <= rows_ahead(batch_rows, workers) + held_batches(plan) * batch_rows
    assert views.most_bytes + batches.most_bytes <= memory_bound(plan, workers)
    assert batches.most >= 3  # it did wait for the disk
