"""The order of an extraction: every row once, the views of a record together."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.extractor import batch_order
from extract.extractor.batch_loader import rows_ahead
from extract.extractor.batch_order import batches_of, upcoming, view_count, views_at_once
from extract.extractor.shard_job import shards_at_once
from stores.format.plan import Bin, DenseTarget, ShardId, StorePlan
from stores.format.row_table import RowTable
from stores.pyramid import Level, PyramidSpec


def made_plan(
    records: int, views: int, shard_rows: int, batch_rows: int, frames: int | None = 16
) -> StorePlan:
    count = records * views
    square = np.full((count, 2), 32, dtype=np.int32)
    rows = RowTable(
        keys=tuple(f"clip{number:04d}" for number in range(records)) * views,
        view=np.repeat(np.arange(views, dtype=np.int32), records),
        params=np.zeros((count, 1)),
        bin=np.zeros(count, np.int32),
        padded_hw=square,
        valid_hw=square,
        original_hw=square,
    )
    return StorePlan(
        name="made",
        identity={"made": True},
        pyramid=PyramidSpec((Level(name="p5n", stride_px=32, channels=8, stage=4),)),
        codec="int8",
        codec_settings={},
        bins=(Bin(height_px=32, width_px=32, rows=count, shard_rows=shard_rows, batch_rows=batch_rows),),
        targets=(DenseTarget("label", "int64", ()),),
        view_params=("nothing",),
        frames=frames,
        rows=rows,
        pixels=False,
    )


plans = st.builds(
    made_plan,
    records=st.integers(1, 40),
    views=st.integers(1, 5),
    shard_rows=st.sampled_from((1, 2, 4, 8, 16)),
    batch_rows=st.integers(1, 5),
    frames=st.sampled_from((16, None)),
)


@settings(max_examples=60, deadline=None)
@given(plan=plans, data=st.data())
def test_every_row_is_computed_once_in_the_batches_of_its_shard(plan: StorePlan, data: st.DataObject) -> None:
    todo = [shard for shard in plan.shards() if data.draw(st.booleans())]
    found: dict[ShardId, list[object]] = {shard: [] for shard in todo}
    loaded: Counter[int] = Counter()
    held = most_open = most_held = 0
    opened: set[ShardId] = set()
    for batch, groups in upcoming(plan, deque(todo), None):
        for group in groups:
            assert len({plan.rows.keys[row] for row in group}) == 1
            loaded.update(group)
            held += len(group)
        found[batch.shard].append(batch)
        opened.add(batch.shard)
        most_open, most_held = max(most_open, len(opened)), max(most_held, held)
        if batch.is_last:
            opened.remove(batch.shard)
        assert all(loaded[row] == 1 for row in batch.rows), "loaded by the time they are needed"
        held -= len(batch.rows)
    assert found == {shard: list(batches_of(plan, shard)) for shard in todo}
    assert loaded == Counter(row for shard in todo for row in plan.shard_rows(shard))
    views = views_at_once(plan)
    assert most_open < shards_at_once(plan), "or a shard would wait for one that waits for rows"
    assert most_held <= (views + 1) * (plan.bins[0].batch_rows or 1), (
        "no more than a batch of each view early"
    )


@settings(max_examples=60, deadline=None)
@given(plan=plans, data=st.data())
def test_two_processes_share_the_shards(plan: StorePlan, data: st.DataObject) -> None:
    """Whoever asks first has a shard, when its turn comes; each loads the rows of its own shards alone."""
    owner: dict[ShardId, int] = {}
    sweeps = [
        upcoming(plan, deque(plan.shards()), None, lambda s, me=me: owner.setdefault(s, me) == me)
        for me in range(2)
    ]
    loaded, computed = [Counter[int](), Counter[int]()], [Counter[int](), Counter[int]()]
    running = [0, 1]
    while running:
        me = data.draw(st.sampled_from(running))
        batch, groups = next(sweeps[me], (None, []))
        if batch is None:
            running.remove(me)
            continue
        assert owner[batch.shard] == me
        loaded[me].update(row for group in groups for row in group)
        computed[me].update(plan.global_row(batch.shard.bin, row) for row in batch.rows)
        assert all(loaded[me][row] == 1 for row in computed[me])
    assert loaded == computed
    assert computed[0] + computed[1] == Counter(range(len(plan.rows)))


@settings(max_examples=60, deadline=None)
@given(plan=plans.filter(lambda plan: views_at_once(plan) == view_count(plan)))
def test_the_views_of_a_record_are_loaded_together(plan: StorePlan) -> None:
    views, shard_rows = views_at_once(plan), plan.bins[0].shard_rows
    records = len(plan.rows) // views
    groups = [group for _, groups in upcoming(plan, deque(plan.shards()), None) for group in groups]
    if records % shard_rows == 0:
        assert sorted(map(len, groups)) == [views] * records
    times = Counter(plan.rows.keys[group[0]] for group in groups)
    if shard_rows <= records:
        assert max(times.values()) <= 2 and sum(times.values()) <= records + shard_rows - 1


def test_an_image_is_decoded_once_for_eight_views_and_again_for_the_next() -> None:
    plan = made_plan(16, 20, 8, 2, frames=None)
    assert (views_at_once(plan), view_count(plan)) == (8, 20)
    groups = [group for _, groups in upcoming(plan, deque(plan.shards()), None) for group in groups]
    assert sorted(map(len, groups)) == [4] * 16 + [8] * 32
    for group in groups:
        assert len({plan.rows.keys[row] for row in group}) == 1
        assert len({int(plan.rows.view[row]) // 8 for row in group}) == 1


def test_images_are_extracted_shard_after_shard_where_much_would_be_lost_or_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = made_plan(10, 3, 4, 2, frames=None)
    monkeypatch.setattr(batch_order, "HELD_BYTES", 50)
    batches = list(upcoming(plan, deque(plan.shards()), None))
    assert [batch.rows for batch, _ in batches] == [range(start, start + 2) for start in range(0, 30, 2)]
    assert all(groups == [[row] for row in batch.rows] for batch, groups in batches)
    monkeypatch.undo()
    assert views_at_once(plan) == 3
    assert views_at_once(made_plan(600, 3, 128, 2, frames=None)) == 1, "a shard is 64 batches"


def test_shards_that_are_added_meanwhile_follow() -> None:
    plan = made_plan(8, 2, 4, 4)
    todo = deque(plan.shards()[:2])
    batches = upcoming(plan, todo, None)
    first = next(batches)[0]
    todo.append(plan.shards()[3])
    assert [first.shard, *(batch.shard for batch, _ in batches)] == [
        plan.shards()[0],
        plan.shards()[1],
        plan.shards()[3],
    ]


@pytest.mark.parametrize(("workers", "batch_rows"), [(1, 1), (2, 3), (16, 10)])
def test_the_bound_of_rows_ahead_grows_with_the_views(workers: int, batch_rows: int) -> None:
    bounds = [rows_ahead(batch_rows, workers, views) for views in (1, 2, 12)]
    assert bounds == sorted(bounds)
    assert bounds[2] >= 12 * workers, "every thread has a record to decode"
