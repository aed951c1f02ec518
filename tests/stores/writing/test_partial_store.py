"""The finished shards of a store that is still being extracted, as a store of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from stores import open_store, verify_store
from stores.errors import NoSuchStore, StoreError
from stores.format.row_table import NOT_YET
from stores.writing.partial_store import REASON, commit_finished
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import NEW_LAYOUT, MadeRows, extract, fill_shard, places, small_plan
from tests.faults.outcomes import assert_holds, store_files


@pytest.mark.parametrize("layout", [NEW_LAYOUT, {}])
def test_finished_shards_are_read_as_a_store(tmp_path: Path, layout: dict[str, tuple[str, ...]]) -> None:
    rows = MadeRows(small_plan(**layout))
    writer = StoreWriter.open_or_create(tmp_path, rows.plan)
    with pytest.raises(StoreError, match="no row is written yet"):
        commit_finished(writer.path, tmp_path / "partial")
    first, second, third = rows.plan.shards()
    assert fill_shard(writer, first, rows) and fill_shard(writer, third, rows)
    before = store_files(writer.path)
    part = commit_finished(writer.path, tmp_path / "partial")
    assert store_files(writer.path) == before, "the store that is being extracted is only read"
    assert (part.shards, part.shards_planned, part.rows_planned) == (2, 3, len(rows.plan.rows))
    there = [place for place in rows.written() if place[0] != second.bin or place[1] // 2 != second.shard]
    assert part.rows == len(there)
    copies = rows.copies()
    assert_holds(part.path, [copies[place] for place in there])
    assert verify_store(part.path, full=True).ok
    with open_store(part.path) as store:
        left_out = [reason for _, _, code, reason in store.skipped if code == NOT_YET]
        assert len(store) == part.rows and left_out == [REASON] * len(rows.plan.shard_rows(second))
    assert commit_finished(writer.path, tmp_path / "partial") == part
    extract(tmp_path, rows)  # its end takes nothing away
    assert_holds(part.path, [copies[place] for place in there])
    assert [path.name for path in (tmp_path / "partial").iterdir()] == [part.path.name]
    assert set(there) < set(places(rows.plan))


def test_there_must_be_a_store(tmp_path: Path) -> None:
    with pytest.raises(NoSuchStore):
        commit_finished(tmp_path / "none", tmp_path / "partial")
