"""The disk probe: it writes with the threads, batches and order of an extraction."""

from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from extract.extractor.batch_order import upcoming
from extract.extractor.shard_job import COMMITS_AT_ONCE, ShardJob, shards_at_once
from pipelines.forecast import disk_probe
from stores.format.plan import Bin, ShardId
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import NEW_LAYOUT, P4, P5, small_plan
from tests.unsynced import unsynced  # noqa: F401 - a fixture of this module

PLAN = small_plan(
    bins=(Bin(height_px=64, width_px=64, rows=14, shard_rows=4, batch_rows=3),),
    levels=(P4, P5),
    views=1,
    **NEW_LAYOUT,
)
ROW_BYTES = 4 * 4 * 2 + 4 * 2 + 2 * 2 * 3 + 4 * 3


class Seen(ShardJob):
    put_rows: ClassVar[list[list[int]]] = []
    at_once: ClassVar[set[int]] = set()
    open: ClassVar[list[ShardId]] = []

    def put(self, item):
        if item is not None:
            self.put_rows.append(list(item.rows))
        super().put(item)

    def _run(self):
        self.open.append(self.shard)
        self.at_once.add(len(self.open))
        try:
            return super()._run()
        finally:
            self.open.remove(self.shard)


def test_it_writes_as_an_extraction_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_probe, "ShardJob", Seen)
    written = disk_probe.write_shards(PLAN, tmp_path, 4, 1 << 30)
    planned = [list(batch.rows) for batch, _ in upcoming(PLAN, deque(PLAN.shards()), None)]
    assert Seen.put_rows == planned
    assert max(Seen.at_once) <= shards_at_once(PLAN) + COMMITS_AT_ONCE
    assert written.bytes == 14 * ROW_BYTES and written.seconds > 0
    writer = StoreWriter.open_or_create(tmp_path, PLAN)
    assert writer.pending() == []


def test_no_more_is_written_than_asked_for(tmp_path: Path) -> None:
    written = disk_probe.write_shards(PLAN, tmp_path, 4, 3 * ROW_BYTES)
    assert written.bytes == 3 * ROW_BYTES
    finished = StoreWriter.open_or_create(tmp_path, PLAN).finished()
    assert [receipt.outcome.count(0) for receipt in finished.values()] == [3]


def test_the_speed_of_large_rows_takes_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(PLAN, bins=(replace(PLAN.bins[0], batch_rows=4),))
    monkeypatch.setattr(disk_probe, "_MADE_BYTES", 2 * ROW_BYTES)
    assert len(next(iter(disk_probe.made_rows(plan, 0).finite.values()))) == 2
    assert disk_probe.write_shards(plan, tmp_path, 4, 1 << 30).bytes == 14 * ROW_BYTES
