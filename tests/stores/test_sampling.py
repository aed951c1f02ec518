"""An epoch reads each record once, over all ranks; epochs walk through the views."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.sampling import batches, key_hash, shuffle, training_rows


@dataclass(frozen=True)
class Index:
    keys: tuple[str, ...]
    views: np.ndarray


def index_of(pairs):
    return Index(tuple(key for key, _ in pairs), np.array([view for _, view in pairs], np.int32))


def full_index(records, views):
    return index_of([(f"record-{r}", v) for v in range(views) for r in range(records)])


GOLDEN_SHUFFLE = [2, 3, 7, 4, 1, 5, 6, 0]
PAIRS = st.sets(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3)), min_size=1).map(sorted)


def reference(index, epoch):
    """Record -> row, by walking on from the wanted view, as the rule is worded."""
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


def test_a_record_without_its_view_shows_the_next_one_and_one_without_any_is_left_out():
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


def test_the_shuffle_is_written_down():
    """Runs are resumed under other versions of numpy: these numbers never change."""
    assert shuffle(8, "order", 0, 0).tolist() == GOLDEN_SHUFFLE
    assert key_hash("record-0") == 5423641343118414517


def test_an_empty_index_gives_no_rows():
    assert len(training_rows(index_of([]), seed=0, epoch=0)) == 0


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
