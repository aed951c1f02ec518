"""The way from stores to batches: which rows, in which order, and that they are the store's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import TrainConfig
from pipelines.errors import UsageError
from pipelines.feed.datamodule import StoreData, Stretch
from pipelines.feed.host_ring import HostSlot, pack, plan_packing, unpack
from pipelines.feed.joined_stores import JoinedStores, RowIndex, Rows
from pipelines.feed.pace import PaceMeter
from pipelines.feed.prefetch import read_ahead
from pipelines.feed.row_order import EndlessRows
from pipelines.feed.shard_read_ahead import ShardReadAhead
from pipelines.feed.store_feed import RING_SLOTS, Batch, StoreFeed
from pipelines.tasks import task_of
from stores.errors import IdentityError, IntegrityError, LevelMissing
from stores.reading.reader import open_store
from tests.pipelines.made_stores import make_store

CPU = torch.device("cpu")
SEGMENTATION = task_of("segmentation")


def index_of(records: int, views: int) -> RowIndex:
    view, record = np.divmod(np.arange(records * views), records)
    return RowIndex(
        keys=tuple(f"r{number}" for number in record),
        views=view.astype(np.int32),
        shards=np.arange(records * views) // 4,
    )


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("start", [0, 1, 3, 7, 20])
def test_rows_of_a_step_do_not_depend_on_where_a_run_began(start: int, window: int | None) -> None:
    rows = EndlessRows(index_of(5, 3), batch_size=4, seed=1, window=window)
    whole = [batch.tolist() for batch in rows.batches(0, 25)]
    assert [batch.tolist() for batch in rows.batches(start, 25)] == whole[start:]


def test_each_record_once_an_epoch_and_each_view_in_turn() -> None:
    records, views = 6, 3
    index = index_of(records, views)
    stream = np.concatenate(list(EndlessRows(index, batch_size=2, seed=0).batches(0, records * views // 2)))
    for epoch in stream.reshape(views, records):
        assert len({index.keys[row] for row in epoch}) == records
    assert Counter(stream.tolist()) == Counter(range(records * views))


def test_visits_count_the_epochs() -> None:
    rows = EndlessRows(index_of(4, 1), batch_size=3, seed=0)
    visits = np.concatenate([step.visits for step in rows.steps(0, 4)])
    assert visits.tolist() == [0] * 4 + [1] * 4 + [2] * 4


@settings(max_examples=40)
@given(
    st.integers(1, 20), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 4),
    st.sampled_from([None, 1, 5, 100]),
)  # fmt: skip
def test_ranks_share_every_step(
    records: int, views: int, world: int, rows_each: int, start: int, window: int | None
) -> None:
    """Together the ranks see, step by step, the rows that one process would have seen."""
    index, batch_size = index_of(records, views), rows_each * world

    def batches(rank: int, world: int) -> list[list[int]]:
        rows = EndlessRows(index, batch_size=batch_size, seed=3, window=window, rank=rank, world=world)
        return [batch.tolist() for batch in rows.batches(start, start + 6)]

    shares = zip(*(batches(rank, world) for rank in range(world)), strict=True)
    together = [[row for share in step for row in share] for step in shares]
    assert [sorted(step) for step in together] == [sorted(step) for step in batches(0, 1)]


def test_ranks_that_cannot_share_a_step_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--batch-size 5: expected a multiple of the 2 processes"):
        EndlessRows(index_of(8, 1), batch_size=5, seed=0, rank=0, world=2)


@settings(max_examples=40)
@given(st.integers(2, 40), st.integers(1, 30), st.integers(1, 2), st.integers(0, 5))
def test_a_window_reads_forward_and_is_read_in_time(
    records: int, window: int, world: int, start: int
) -> None:
    """What a step shows was read before it, and no more than the stated rows wait in memory."""
    for rank in range(world):
        rows = EndlessRows(
            index_of(records, 2), batch_size=2 * world, seed=0, window=window, rank=rank, world=world
        )
        steps = list(rows.steps(start, start + 2 * records))
        as_read = np.concatenate(list(islice(rows.as_read(start), 12)))
        for number, step in enumerate(steps):
            assert as_read[step.read_at].tolist() == step.rows.tolist()
            assert step.read_at.max() < 2 * (number + 1) + 2 * window // world + 1
        shown = [batch for step in steps for batch in step.rows.tolist()]
        assert shown == np.concatenate(list(rows.batches(start, start + 2 * records))).tolist()


def test_subset_keeps_its_records(tmp_path: Path) -> None:
    named = tmp_path / "keys.txt"
    named.write_text("r1\nr3\n")
    index = index_of(5, 2)
    stream = np.concatenate(list(EndlessRows(index, batch_size=2, seed=0, subset=str(named)).batches(0, 4)))
    assert {index.keys[row] for row in stream} == {"r1", "r3"}
    assert set(index.views[stream].tolist()) == {0, 1}


def test_subset_of_unknown_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("other\n")
    with pytest.raises(ValueError, match="other"):
        EndlessRows(index_of(5, 2), batch_size=2, seed=0, subset=str(tmp_path / "keys.txt"))


@pytest.mark.parametrize("codec_name", ["int8", "float16", "int4"])
def test_batches_hold_the_rows_of_the_store(tmp_path: Path, codec_name: str) -> None:
    path = make_store(tmp_path, codec_name=codec_name)
    asked = [
        np.array([5, 0, 3]),
        np.array([1, 1, 7]),
        np.array([2, 4, 6]),
        np.array([9, 8, 0]),
        np.array([3, 2, 1]),
    ]
    stores = JoinedStores.open([path], verify="always", threads=1)
    feed = StoreFeed(stores, iter(asked), batch_size=3, levels=("p3", "p5"), task=SEGMENTATION, device=CPU)
    with open_store(path) as store:
        for rows, batch in zip(asked, feed, strict=True):
            expected = store.read_features(rows, ("p3", "p5"))
            assert list(batch.features) == ["p3", "p5"]
            for level, x_NCyx in batch.features.items():
                assert x_NCyx.numpy().tobytes() == np.ascontiguousarray(expected[level]).tobytes()
                assert x_NCyx.is_contiguous(memory_format=torch.channels_last)
            labels = [target["labels"] for target in store.read_targets(rows, ("labels",))]
            assert np.array_equal(torch.stack([target["labels"] for target in batch.targets]), labels)
            assert batch.keys == tuple(store.keys[row] for row in rows)
            assert batch.valid_hw == [(64, 64)] * 3
    feed.close()
    stores.close()


def test_two_stores_are_more_views_of_the_same_records(tmp_path: Path) -> None:
    first = make_store(tmp_path / "a", records=4, views=2, seed=0)
    second = make_store(tmp_path / "b", records=4, views=1, seed=1)
    stores = JoinedStores.open([first, second], verify="always", threads=1)
    assert len(stores) == 12
    assert sorted(set(stores.index.views.tolist())) == [0, 1, 2]
    rows = EndlessRows(stores.index, batch_size=4, seed=0)
    seen = Counter()
    feed = StoreFeed(stores, rows.batches(0, 3), batch_size=4, levels=("p5",), task=SEGMENTATION, device=CPU)
    with open_store(first) as one, open_store(second) as two:
        contents = {
            store.read_features([row], ("p5",))["p5"].tobytes(): (which, row)
            for which, store in enumerate((one, two))
            for row in range(len(store))
        }
        for batch in feed:
            for key, x_Cyx in zip(batch.keys, batch.features["p5"], strict=True):
                which, row = contents[x_Cyx.contiguous().numpy().tobytes()]
                assert (one, two)[which].keys[row] == key
                seen[which, row] += 1
    feed.close()
    assert set(seen.values()) == {1} and len(seen) == 12  # three epochs show each of three views once


def test_stores_of_other_weights_are_not_joined(tmp_path: Path) -> None:
    paths = [make_store(tmp_path / name, weights=name * 64, records=4) for name in ("a", "b")]
    with pytest.raises(IdentityError, match=r"backbone\.weights_sha256"):
        JoinedStores.open(paths, verify="always", threads=1)


def test_a_store_of_many_sizes_is_not_trained_from(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 sizes"):
        JoinedStores.open([make_store(tmp_path, split="validation")], verify="always", threads=1)


def test_a_missing_level_is_named(tmp_path: Path) -> None:
    stores = JoinedStores.open([make_store(tmp_path, levels=("p4", "p5"))], verify="always", threads=1)
    with pytest.raises(LevelMissing, match="holds no level p2; available: p4, p5"):
        stores.buffers(2, ("p2", "p4"))


def test_a_skipped_row_gives_way_to_the_records_next_view(tmp_path: Path) -> None:
    hole = frozenset({("training-1", 0), ("training-2", 0), ("training-2", 1)})
    stores = JoinedStores.open([make_store(tmp_path, records=4, skipped=hole)], verify="always", threads=1)
    stream = np.concatenate(list(EndlessRows(stores.index, batch_size=3, seed=0).batches(0, 2)))
    assert Counter(stores.keys(stream)) == Counter({"training-0": 2, "training-1": 2, "training-3": 2})


def test_damage_reaches_the_training_thread(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    shard = next(file for file in path.glob("bins/64x64/levels/p5/q/c/**/*") if file.is_file())
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    stores = JoinedStores.open([path], verify="always", threads=1)
    feed = StoreFeed(
        stores, iter(np.arange(24).reshape(6, 4)), batch_size=4, levels=("p5",), task=SEGMENTATION, device=CPU
    )
    with pytest.raises(IntegrityError, match="p5"):
        list(feed)
    feed.close()


def test_an_unfinished_feed_closes(tmp_path: Path) -> None:
    stores = JoinedStores.open([make_store(tmp_path)], verify="always", threads=1)
    feed = StoreFeed(
        stores, iter([np.arange(4)] * 50), batch_size=4, levels=("p5",), task=SEGMENTATION, device=CPU
    )
    next(feed)
    feed.close()
    assert not feed._reader.is_alive()


def test_read_ahead_hands_over_errors_and_ends_when_left() -> None:
    def failing():  # type: ignore[no-untyped-def]
        yield 1
        raise OSError("disk")

    items = read_ahead(failing(), depth=1)
    assert next(items) == 1
    with pytest.raises(OSError, match="disk"):
        next(items)
    endless = read_ahead(iter(int, 1), depth=2)
    assert next(endless) == 0
    endless.close()


def test_the_order_does_not_depend_on_threads(tmp_path: Path) -> None:
    path = make_store(tmp_path)

    def stream(threads: int, window: int | None) -> list[bytes]:
        stores = JoinedStores.open([path], verify="always", threads=threads)
        config = TrainConfig(head="linear", batch_size=4, shuffle_window=window)
        data = StoreData(stores, config)
        data.levels = ("p4", "p5")
        batches = data.batches(Stretch(start_step=1, stop_step=9, device=CPU))
        found = [
            b"".join(x.contiguous().numpy().tobytes() for x in batch.features.values()) for batch in batches
        ]
        data.close()
        return found

    for window in (None, 6):
        first = stream(1, window)
        assert len(first) == 8 and stream(2, window) == first == stream(4, window)


def test_memory_holds_a_ring_of_batches_however_slow_the_step(tmp_path: Path) -> None:
    """The stated bound: RING_SLOTS encoded batches, and no row is read that has no slot."""
    stores = JoinedStores.open([make_store(tmp_path)], verify="always", threads=1)
    asked, slots = [], []

    def rows() -> Iterator[Rows]:
        for _ in range(40):
            asked.append(1)
            yield np.arange(4)

    made = HostSlot.__init__

    def count(self: HostSlot, *args: Any, **named: Any) -> None:
        made(self, *args, **named)
        slots.append(self.bytes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostSlot, "__init__", count)
        feed = StoreFeed(
            stores, rows(), batch_size=4, levels=("p4", "p5"), task=task_of("segmentation"), device=CPU
        )
    for taken in range(10):
        deadline = time.monotonic() + 5
        while len(asked) < taken + RING_SLOTS and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.005)
        assert taken + RING_SLOTS <= len(asked) <= taken + RING_SLOTS + 1  # the last waits for its slot
        next(feed)
    feed.close()
    row_bytes = 2 * (4 * 4 * 24 + 2 * 2 * 32)  # float16
    assert slots == [4 * row_bytes] * RING_SLOTS


def test_a_further_step_sees_its_rows(tmp_path: Path) -> None:
    path = make_store(tmp_path)

    class Numbered:
        def read(self, rows: Rows) -> Mapping[str, np.ndarray]:
            return {"rows": rows}

        def finish(self, batch: Batch, read: Mapping[str, torch.Tensor]) -> Batch:
            features = {**batch.features, "numbers": read["rows"]}
            return Batch(features=features, targets=batch.targets, valid_hw=batch.valid_hw, keys=batch.keys)

    stores = JoinedStores.open([path], verify="always", threads=1)
    asked = np.array([[5, 0, 3], [9, 9, 1]])
    feed = StoreFeed(
        stores, iter(asked), batch_size=3, levels=("p5",), task=task_of("segmentation"), device=CPU,
        finish=Numbered(),
    )  # fmt: skip
    assert [batch.features["numbers"].tolist() for batch in feed] == asked.tolist()
    feed.close()
    stores.close()


ARRAYS = st.lists(
    st.dictionaries(
        st.sampled_from("abc"),
        st.tuples(
            st.sampled_from(["uint8", "int32", "int64", "float32", "float16", "bool"]),
            st.lists(st.integers(0, 5), max_size=3),
        ),
    ),
    max_size=4,
)


@settings(max_examples=50)
@given(ARRAYS)
def test_packed_arrays_come_out_as_they_went_in(described: list[dict[str, tuple[str, list[int]]]]) -> None:
    """As targets travel to a GPU: one copy for all rows."""
    generator = np.random.default_rng(0)
    rows = [
        {name: generator.integers(0, 2, shape).astype(dtype) for name, (dtype, shape) in row.items()}
        for row in described
    ]
    plan = plan_packing(rows)
    out = np.zeros(plan.bytes, np.uint8)
    pack(rows, plan, out)
    found = unpack(torch.from_numpy(out.copy()), plan)
    assert [list(row) for row in found] == [list(row) for row in rows]
    for row, expected in zip(found, rows, strict=True):
        for name, tensor in row.items():
            assert tensor.numpy().dtype == expected[name].dtype
            assert np.array_equal(tensor.numpy(), expected[name])
    assert plan.bytes <= sum(array.nbytes + 16 for row in rows for array in row.values())


def test_targets_are_not_copied_on_a_cpu() -> None:
    labels = np.zeros((4, 4), np.uint8)
    (row,) = HostSlot({}, pinned=False).upload([{"labels": labels}], CPU)
    assert row["labels"].data_ptr() == labels.ctypes.data


def test_reading_ahead_keeps_to_its_window_and_order() -> None:
    read: list[int] = []
    numbers = np.arange(100)
    ahead = ShardReadAhead(iter([numbers[:60], numbers[60:]]), lambda rows: read.extend(rows), window=10)
    for shown in range(0, 100, 5):
        ahead.wait_for(np.arange(shown, shown + 5))
        assert len(read) >= shown + 5
        assert len(read) <= shown + 5 + 10  # of this batch, which is not shown yet, and the window
        ahead.shown(5)
    ahead.close()
    assert read == list(range(100))


def test_a_row_beyond_the_window_is_read_all_the_same() -> None:
    ahead = ShardReadAhead(iter([np.arange(50)]), lambda rows: None, window=4)
    ahead.wait_for(np.array([30]))
    assert ahead.waiting_rows >= 31
    ahead.close()


def test_reading_ahead_that_fails_leaves_the_error_to_the_reader(caplog: pytest.LogCaptureFixture) -> None:
    def broken(rows: Rows) -> None:
        raise OSError("disk")

    ahead = ShardReadAhead(iter([np.arange(8)]), broken, window=4)
    ahead.wait_for(np.array([3]))  # returns: the reader will meet the damage itself, and name it
    ahead.close()
    assert "read-ahead stopped: disk" in caplog.text


def test_the_feed_reports_what_it_read_and_how_long_steps_waited(tmp_path: Path) -> None:
    stores = JoinedStores.open([make_store(tmp_path)], verify="always", threads=1)

    def slow() -> Iterator[Rows]:
        for _ in range(4):
            time.sleep(0.05)
            yield np.arange(4)

    feed = StoreFeed(
        stores, slow(), batch_size=4, levels=("p4", "p5"), task=task_of("segmentation"), device=CPU
    )
    meter = PaceMeter(lambda: feed.reading)
    assert len(list(feed)) == 4
    pace = meter.interval()
    feed.close()
    assert feed.reading.bytes == pace.bytes == 4 * 4 * 2 * (4 * 4 * 24 + 2 * 2 * 32)
    assert feed.reading.batches == 4
    assert 0.1 < pace.waited_s < pace.seconds and pace.waited_share > 0.5
    assert " % of the time, read at " in pace.waits_for()
    assert meter.interval().waits_for() == "the head" and meter.interval().bytes == 0
