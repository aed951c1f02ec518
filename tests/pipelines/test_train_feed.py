"""The way from stores to batches: which rows, in which order, and that they are the store's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.datamodule import EndlessRows
from pipelines.exit_codes import UsageError
from pipelines.joined_stores import JoinedStores, RowIndex
from pipelines.read_ahead import read_ahead
from pipelines.store_feed import StoreFeed
from pipelines.tasks import task_of
from stores.errors import IdentityError, IntegrityError, LevelMissing
from stores.reader import open_store
from tests.pipelines.made_stores import make_store

CPU = torch.device("cpu")
SEGMENTATION = task_of("segmentation")


def index_of(records: int, views: int) -> RowIndex:
    view, record = np.divmod(np.arange(records * views), records)
    return RowIndex(keys=tuple(f"r{number}" for number in record), views=view.astype(np.int32))


@pytest.mark.parametrize("start", [0, 1, 3, 7, 20])
def test_rows_of_a_step_do_not_depend_on_where_a_run_began(start: int) -> None:
    rows = EndlessRows(index_of(5, 3), batch_size=4, seed=1)
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
    visits = np.concatenate([numbers for _, numbers in rows.visits(0, 4)])
    assert visits.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_ranks_share_an_epoch() -> None:
    parts = [
        np.concatenate(
            list(EndlessRows(index_of(8, 1), batch_size=2, seed=0, rank=rank, world=2).batches(0, 2))
        )
        for rank in (0, 1)
    ]
    assert sorted(np.concatenate(parts).tolist()) == list(range(8))


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
    with pytest.raises(LevelMissing, match="holds p4, p5, not p2"):
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
