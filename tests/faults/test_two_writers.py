"""Several writers of one store whose bytes differ, their file operations interleaved: each shard has one
winner, whole; and writers of different stores under one root do not notice each other."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from stores.checks.verify import verify_store
from stores.errors import IncompleteStore, PlanError
from stores.format.plan import Bin, ShardId, StorePlan
from stores.shards.disk import Files
from stores.writing.writer import StoreWriter
from tests.faults.faulty_files import Fault, FaultyFiles, kills
from tests.faults.interleaving import Choose, SteppedFiles, Turns, switch_once
from tests.faults.made_stores import (
    NEW_LAYOUT,
    ORIGINAL_LABELS,
    MadeRows,
    extract,
    fill_shards,
    places,
    small_plan,
)
from tests.faults.outcomes import assert_holds, assert_reads_back, store_files

Won = Mapping[ShardId, bool]
Work = Callable[[Path, MadeRows, Files], Won]

THREE_SHARDS = small_plan(targets=(ORIGINAL_LABELS,), **NEW_LAYOUT)
ONE_SHARD = small_plan(
    "float16",
    bins=(Bin(height_px=32, width_px=32, rows=2, shard_rows=2),),
    targets=(ORIGINAL_LABELS,),
    **NEW_LAYOUT,
)
"""With as few files of both kinds as possible, since every operation has a turn."""


def different_writers(plan: StorePlan, count: int = 2) -> list[MadeRows]:
    """Writers of one plan whose bytes differ, and who disagree about what is decodable."""
    skipped: list[frozenset[tuple[int, int]]] = [frozenset({(0, 0)}), frozenset()]
    return [MadeRows(plan, seed, skipped[seed % 2]) for seed in range(count)]


def race(
    root: Path,
    writers: Sequence[MadeRows],
    choose: Choose,
    *,
    work: Sequence[Work] = (),
    faults: Mapping[int, Fault] | None = None,
) -> list[Won | None]:
    """Runs the writers; returns the shards each won, None for a killed one.

    `work` is what each of them does, whole extractions by default; `faults` are those of the first.
    """
    turns = Turns(len(writers))
    jobs = []
    for i, rows in enumerate(writers):
        files = SteppedFiles(turns, i, faults if i == 0 else None)
        jobs.append(partial(work[i] if work else extract, root, rows, files))
    return turns.run(jobs, choose)


def winners_of(writers: Sequence[MadeRows], won: Sequence[Won | None]) -> dict[ShardId, MadeRows]:
    """The winner of each shard: the writer that was informed, else the one killed before it could be."""
    winners = {}
    for shard in writers[0].plan.shards():
        informed = [rows for rows, mine in zip(writers, won, strict=True) if mine and mine.get(shard)]
        killed = [rows for rows, mine in zip(writers, won, strict=True) if mine is None]
        candidates = informed or killed
        assert len(candidates) == 1, f"{shard} has {len(candidates)} winners"
        winners[shard] = candidates[0]
    return winners


def assert_one_winner_each(path: Path, winners: Mapping[ShardId, MadeRows]) -> None:
    """Every shard holds what its winner wrote and nothing else, and all receipts say so."""
    plan = next(iter(winners.values())).plan
    copies = {shard: rows.copies() for shard, rows in winners.items()}
    held = []
    for bin_index, row in places(plan):
        copy = copies[ShardId(bin_index, row // plan.bins[bin_index].shard_rows)]
        if (bin_index, row) in copy:  # not skipped by the winner
            held.append(copy[bin_index, row])
    assert_holds(path, held)
    report = verify_store(path, full=True)
    assert report.ok, report.problems


def assert_nothing_beside(path: Path) -> None:
    partials = [name for name in store_files(path) if name.endswith(".partial")]
    assert not partials


def operations(root: Path, rows: MadeRows, work: Work) -> int:
    """Number of operations of a single writer."""
    files = FaultyFiles()
    work(root, rows, files)
    shutil.rmtree(root)
    return len(files.names)


def switch_once_at_each(root: Path, begun: Path, step: int, work: Sequence[Work]) -> None:
    """At each `step`-th operation of one writer the other does all its work, then the first continues."""
    writers = different_writers(ONE_SHARD)
    shutil.copytree(begun, root)
    for at in range(0, operations(root, writers[0], work[0]), step):
        shutil.copytree(begun, root)
        won = race(root, writers, switch_once(0, at), work=work)
        assert extract(root, writers[0]) == {}, "what is left to do is the manifest at most"
        path = root / ONE_SHARD.folder_name
        assert_one_winner_each(path, winners_of(writers, won))
        assert_nothing_beside(path)
        shutil.rmtree(root)


@pytest.fixture
def begun(memory_path: Path) -> Path:
    """The root of a store that was created and holds nothing."""
    StoreWriter.open_or_create(memory_path / "begun", ONE_SHARD)
    return memory_path / "begun"


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.ci
def test_two_writers_of_a_shard_switching_once(memory_path: Path, begun: Path, step: int) -> None:
    switch_once_at_each(memory_path / "race", begun, step, [fill_shards, fill_shards])


def test_two_writers_of_a_shard_and_the_manifest(memory_path: Path, begun: Path) -> None:
    switch_once_at_each(memory_path / "race", begun, 11, [extract, extract])


def test_two_writers_creating_a_store(memory_path: Path) -> None:
    (memory_path / "nothing").mkdir()
    switch_once_at_each(memory_path / "race", memory_path / "nothing", 13, [fill_shards, fill_shards])


@pytest.mark.slow
@pytest.mark.parametrize("other", [fill_shards, extract])
def test_two_writers_of_a_store_switching_at_every_operation(memory_path: Path, other: Work) -> None:
    (memory_path / "nothing").mkdir()
    switch_once_at_each(memory_path / "race", memory_path / "nothing", 1, [extract, other])


def at_random(purpose: str) -> Choose:
    """Whose turn it is changes after 1 to 60 operations, so that writers meet in every phase."""
    generator = random.Random(purpose)
    turn = [0, 0]

    def choose(alive: Sequence[int], step: int) -> int:
        if turn[0] not in alive or turn[1] == 0:
            turn[:] = [generator.choice(alive), generator.choice([1, 1, 2, 5, 20, 60])]
        turn[1] -= 1
        return turn[0]

    return choose


def race_at_random(root: Path, count: int, purpose: str) -> None:
    writers = different_writers(THREE_SHARDS, count)
    won = race(root, writers, at_random(purpose))
    path = root / THREE_SHARDS.folder_name
    assert_one_winner_each(path, winners_of(writers, won))
    assert_nothing_beside(path)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("seed", range(15))
def test_writers_at_random(memory_path: Path, count: int, seed: int) -> None:
    race_at_random(memory_path, count, f"{count} writers, {seed}")


@pytest.mark.slow
def test_many_writers_at_random(memory_path: Path) -> None:
    for seed in range(200):
        race_at_random(memory_path / str(seed), 2 + seed % 3, f"slow {seed}")


def kill_one_of_two(root: Path, at: int, purpose: str) -> None:
    writers = different_writers(THREE_SHARDS)
    won = race(root, writers, at_random(purpose), faults={at: kills})
    assert won[1] is not None, "the surviving writer finishes"
    assert_one_winner_each(root / THREE_SHARDS.folder_name, winners_of(writers, won))


@pytest.mark.parametrize("seed", range(10))
def test_one_of_two_writers_is_killed(memory_path: Path, seed: int) -> None:
    at = random.Random(f"kill {seed}").randrange(500)  # somewhere in what both of them do
    kill_one_of_two(memory_path, at, f"killed {seed}")


@pytest.mark.slow
def test_one_of_two_writers_is_killed_anywhere(memory_path: Path) -> None:
    for at in range(0, 700, 3):
        kill_one_of_two(memory_path / str(at), at, f"slow kill {at}")


@pytest.mark.parametrize("seed", range(2))
def test_extractions_of_different_plans_in_one_root(memory_path: Path, seed: int) -> None:
    writers = [MadeRows(small_plan(targets=(ORIGINAL_LABELS,), seed=each), each) for each in range(2)]
    assert writers[0].plan.folder_name != writers[1].plan.folder_name
    won = race(memory_path, writers, at_random(f"different plans {seed}"))
    for rows, mine in zip(writers, won, strict=True):
        assert mine == dict.fromkeys(rows.plan.shards(), True)
        path = memory_path / rows.plan.folder_name
        assert_reads_back(path, rows)
        assert verify_store(path, full=True).ok
        assert_nothing_beside(path)


def extract_with_smaller_batches(root: Path, rows: MadeRows, files: Files) -> Won:
    """An extraction whose device runs out of memory at its first batch, before any shard is finished."""
    writer = StoreWriter.open_or_create(root, rows.plan, files=files)
    try:
        writer.set_batch_rows([1 for _ in rows.plan.bins])
    except PlanError:  # a shard is finished: the batch size is fixed
        return {}
    return extract_or_stop(root, rows, files)


def extract_or_stop(root: Path, rows: MadeRows, files: Files) -> Won:
    """An extraction that stops if another writer has restarted the store with other batches."""
    try:
        return extract(root, rows, files)
    except (PlanError, IncompleteStore, FileNotFoundError):  # the last where the store is gone just then
        return {}


def settle_on_batches(root: Path, begun: Path, step: int, first: Work, second: Work) -> None:
    writers = different_writers(ONE_SHARD)
    shutil.copytree(begun, root)
    for at in range(0, operations(root, writers[0], first), step):
        shutil.copytree(begun, root)
        race(root, writers, switch_once(0, at), work=[first, second])
        extract(root, writers[0])
        report = verify_store(root / ONE_SHARD.folder_name, full=True)
        assert report.ok, (at, report.problems)
        shutil.rmtree(root)


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.ci
def test_one_of_two_writers_settles_on_smaller_batches(memory_path: Path, begun: Path, step: int) -> None:
    """The later writer stops; the store never has two plans."""
    both = (extract_with_smaller_batches, extract_or_stop)
    settle_on_batches(memory_path / "race", begun, step, *both)
    settle_on_batches(memory_path / "race", begun, step, *reversed(both))
