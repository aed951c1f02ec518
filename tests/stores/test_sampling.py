"""Sampling: each record once an epoch over all ranks, views in turn, shuffling within a window."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.reading.reader import open_store
from stores.sampling import batches, key_hash, shuffle, training_rows, windowed_order
from tests.pipelines.made_stores import make_store


@dataclass(frozen=True)
class Index:
    keys: tuple[str, ...]
    views: np.ndarray
    shards: np.ndarray


def index_of(pairs, shard_rows=4):
    views = np.array([view for _, view in pairs], np.int32)
    return Index(tuple(key for key, _ in pairs), views, np.arange(len(pairs)) // shard_rows)


def full_index(records, views, shard_rows=4):
    return index_of([(f"record-{r}", v) for v in range(views) for r in range(records)], shard_rows)


def windowed(index, **how):
    return windowed_order(index, index.shards, **how)


GOLDEN_SHUFFLE = [2, 3, 7, 4, 1, 5, 6, 0]
GOLDEN_WINDOW = [4, 6, 5, 7, 0, 1, 2, 8, 3]
PAIRS = st.sets(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3)), min_size=1).map(sorted)


def reference(index, epoch):
    """Record -> row by the documented rule: the wanted view, else the next one."""
    rows = {pair: row for row, pair in enumerate(zip(index.keys, index.views.tolist(), strict=True))}
    count = int(index.views.max()) + 1
    found = {}
    for key in dict.fromkeys(index.keys):
        view = (epoch + key_hash(key)) % count
        while (key, view) not in rows:
            view = (view + 1) % count
        found[key] = rows[key, view]
    return found


@given(PAIRS, st.integers(0, 9), st.integers(1, 5), st.integers(0, 3))
def test_ranks_partition_the_epoch(pairs, epoch, world, seed):
    index = index_of(pairs)
    parts = [training_rows(index, seed=seed, epoch=epoch, rank=r, world=world) for r in range(world)]
    together = np.concatenate(parts)
    assert sorted(together.tolist()) == sorted(reference(index, epoch).values())
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(part.dtype == np.int64 for part in parts)


@given(st.integers(1, 20), st.integers(1, 5))
def test_as_many_epochs_as_views_show_every_row_once(records, views):
    index = full_index(records, views)
    shown = np.concatenate([training_rows(index, seed=0, epoch=e) for e in range(views)])
    assert sorted(shown.tolist()) == list(range(records * views))


def test_an_epoch_mixes_views():
    index = full_index(400, 4)
    counts = np.bincount(index.views[training_rows(index, seed=0, epoch=0)])
    assert counts.min() > 70  # 100 expected each


def test_order_depends_on_seed_and_epoch_and_not_on_world():
    index = full_index(100, 1)
    first = training_rows(index, seed=1, epoch=0)
    np.testing.assert_array_equal(first, training_rows(index, seed=1, epoch=0))
    assert (first != training_rows(index, seed=2, epoch=0)).any()
    assert (first != training_rows(index, seed=1, epoch=1)).any()
    dealt = np.empty(100, np.int64)
    for rank in range(3):
        dealt[rank::3] = training_rows(index, seed=1, epoch=0, rank=rank, world=3)
    np.testing.assert_array_equal(first, dealt)


def test_a_missing_view_is_replaced_by_the_next_and_a_record_without_views_left_out():
    complete = full_index(6, 3)
    kept = [
        pair
        for pair in zip(complete.keys, complete.views.tolist(), strict=True)
        if pair[0] != "record-2" and pair != ("record-3", 1)
    ]
    index = index_of(kept)
    for epoch in range(3):
        rows = training_rows(index, seed=0, epoch=epoch)
        shown = {index.keys[row]: int(index.views[row]) for row in rows}
        assert "record-2" not in shown and len(shown) == len(rows) == 5
        wanted = (epoch + key_hash("record-3")) % 3
        assert shown["record-3"] == (2 if wanted == 1 else wanted)


def test_the_shuffle_is_pinned():
    """Runs are resumed under other versions of numpy: these numbers never change."""
    assert shuffle(8, "order", 0, 0).tolist() == GOLDEN_SHUFFLE
    assert key_hash("record-0") == 5423641343118414517

    assert windowed(full_index(9, 1), seed=0, epoch=0, window=3).rows.tolist() == GOLDEN_WINDOW


def test_an_empty_index_gives_no_rows():
    assert len(training_rows(index_of([]), seed=0, epoch=0)) == 0
    assert len(windowed(index_of([]), seed=0, epoch=0, window=3).rows) == 0


@given(PAIRS, st.integers(0, 5), st.integers(0, 2), st.integers(1, 40), st.integers(1, 6))
def test_a_window_shows_the_same_rows(pairs, epoch, seed, window, shard_rows):
    index = index_of(pairs, shard_rows)
    order = windowed(index, seed=seed, epoch=epoch, window=window)
    assert sorted(order.rows) == sorted(training_rows(index, seed=seed, epoch=epoch))
    assert sorted(order.read_at) == list(range(len(order.rows)))
    as_read = order.rows[np.argsort(order.read_at)]
    runs = [
        shard
        for i, shard in enumerate(index.shards[as_read])
        if i == 0 or index.shards[as_read[i - 1]] != shard
    ]
    assert len(runs) == len(set(runs))  # no shard is read twice
    for shard in runs:
        inside = as_read[index.shards[as_read] == shard]
        assert (np.diff(inside) > 0).all()  # each is read forward


@given(st.integers(1, 300), st.integers(1, 80), st.integers(0, 3))
def test_no_more_than_a_window_waits_in_memory(records, window, epoch):
    read_at = windowed(full_index(records, 1), seed=0, epoch=epoch, window=window).read_at
    must_have_read = np.maximum.accumulate(read_at) + 1
    shown = np.arange(1, len(read_at) + 1)
    assert (must_have_read - shown).max() < window
    assert np.abs(read_at - np.arange(len(read_at))).max() < window


@pytest.mark.parametrize("window", [64, 256, 1000])
def test_rows_read_together_are_shown_a_third_of_the_window_apart(window):
    read_at = windowed(full_index(8000, 1), seed=0, epoch=0, window=window).read_at
    place = np.argsort(read_at)
    apart = np.abs(np.diff(place))[window:-window].mean()
    assert apart == pytest.approx(window / 3, rel=0.05)


def test_how_often_rows_of_a_shard_meet_in_a_batch():
    """The documented quality, as pairs of one shard in a batch of 16."""
    index = full_index(16384, 1, shard_rows=32)

    def pairs(rows):
        counts = [Counter(index.shards[batch].tolist()) for batch in batches(rows, 16, drop_last=True)]
        return np.mean([sum(n * (n - 1) / 2 for n in count.values()) for count in counts])

    at_random = 120 * 31 / 16383  # pairs of a batch x chance that two rows share their shard
    assert pairs(training_rows(index, seed=0, epoch=0)) == pytest.approx(
        at_random, abs=0.05
    )  # 3 sigma of 1024 batches
    # a window of w shards: about one pair in w shares one
    for shards in (4, 16, 32):
        met = pairs(windowed(index, seed=0, epoch=0, window=32 * shards).rows)
        assert met == pytest.approx(120 / shards, rel=0.2)
    assert pairs(windowed(index, seed=0, epoch=0, window=1).rows) == 120


def test_a_windows_order_depends_on_seed_and_epoch():
    index = full_index(100, 1)
    orders = [
        windowed(index, seed=seed, epoch=epoch, window=16).rows.tolist()
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert orders[0] == orders[3] and orders[0] not in orders[1:3]


@pytest.mark.parametrize(("epoch", "window"), [(-1, 4), (0, 0)])
def test_impossible_windows_are_refused(epoch, window):
    with pytest.raises(ValueError, match="window"):
        windowed(full_index(4, 1), seed=0, epoch=epoch, window=window)


def test_a_store_knows_its_shards(tmp_path):
    hole = frozenset({("training-1", 0)})
    with open_store(make_store(tmp_path, records=6, views=2, skipped=hole)) as store:
        rows = list(zip(store.keys, store.views.tolist(), strict=True))
        planned = list(zip(store.plan.rows.keys, store.plan.rows.view.tolist(), strict=True))
        assert store.shards.tolist() == [planned.index(row) // 4 for row in rows]
    with open_store(make_store(tmp_path, records=6, split="validation")) as store:
        in_bins = {
            name: set(store.shards[[b == name for b in store.bins]].tolist()) for name in set(store.bins)
        }
        assert set.intersection(*in_bins.values()) == set()
        assert set.union(*in_bins.values()) == set(range(len(set(store.shards.tolist()))))


@pytest.mark.parametrize(("epoch", "rank", "world"), [(-1, 0, 1), (0, 1, 1), (0, -1, 2), (0, 0, 0)])
def test_impossible_ranks_are_refused(epoch, rank, world):
    with pytest.raises(ValueError, match="rank"):
        training_rows(full_index(2, 1), seed=0, epoch=epoch, rank=rank, world=world)


@given(st.integers(0, 50), st.integers(1, 12), st.booleans())
def test_batches(length, batch, drop_last):
    parts = list(batches(np.arange(length), batch, drop_last=drop_last))
    together = np.concatenate(parts) if parts else np.arange(0)
    assert together.tolist() == list(range(length - length % batch if drop_last else length))
    assert all(len(part) == batch for part in parts[: None if drop_last else -1])
    with pytest.raises(ValueError, match="batch"):
        next(batches(np.arange(3), 0, drop_last=False))
