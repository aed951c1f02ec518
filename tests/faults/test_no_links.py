"""Disks without hard links: the rename that does not replace decides, or the user's promise of one writer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from stores.checks.verify import verify_store
from stores.errors import NoExclusiveCreation
from tests.faults.disks_without_links import NO_LINK_ERRORS, WithoutExclusiveStep, WithoutLinks
from tests.faults.faulty_files import FaultyFiles, Killed, kills
from tests.faults.interleaving import SteppedFiles, Turns
from tests.faults.made_stores import MadeRows, extract
from tests.faults.outcomes import assert_finished, assert_reads_back, store_files, without_writers
from tests.faults.test_two_writers import (
    THREE_SHARDS,
    assert_nothing_beside,
    assert_one_winner_each,
    at_random,
    different_writers,
    winners_of,
)

ROWS = MadeRows(THREE_SHARDS)


class SteppedWithoutLinks(SteppedFiles, WithoutLinks):
    """One of several writers of a disk without hard links."""


@pytest.fixture(scope="module")
def clean(module_path: Path) -> dict[str, object]:
    extract(module_path, ROWS)
    return without_writers(store_files(module_path / THREE_SHARDS.folder_name))


@pytest.mark.parametrize("code", NO_LINK_ERRORS)
@pytest.mark.parametrize("disk", [WithoutLinks, WithoutExclusiveStep])
def test_a_store_on_a_disk_without_hard_links_is_the_same(
    memory_path: Path, clean: dict[str, object], disk: type[WithoutLinks], code: int
) -> None:
    files = disk()
    files.link_error = code
    won = extract(memory_path, ROWS, files)
    assert won == dict.fromkeys(THREE_SHARDS.shards(), True)
    path = memory_path / THREE_SHARDS.folder_name
    assert_nothing_beside(path)
    assert without_writers(store_files(path)) == clean


def test_without_an_exclusive_step_and_a_promise_nothing_is_written(memory_path: Path) -> None:
    files = WithoutExclusiveStep()
    files.single_writer = False
    with pytest.raises(NoExclusiveCreation, match=r"no hard links.*Operation not permitted.*--single-writer"):
        extract(memory_path, ROWS, files)
    assert not [path for path in memory_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("seed", range(6))
def test_two_writers_on_a_disk_without_hard_links(memory_path: Path, seed: int) -> None:
    writers = different_writers(THREE_SHARDS)
    turns = Turns(len(writers))
    jobs = [
        lambda rows=rows, i=i: extract(memory_path, rows, SteppedWithoutLinks(turns, i))
        for i, rows in enumerate(writers)
    ]
    won = turns.run(jobs, at_random(f"no links {seed}"))
    path = memory_path / THREE_SHARDS.folder_name
    assert_one_winner_each(path, winners_of(writers, won))
    assert_nothing_beside(path)


@pytest.mark.parametrize("disk", [WithoutLinks, WithoutExclusiveStep])
def test_kills_on_a_disk_without_hard_links(
    memory_path: Path, clean: dict[str, object], disk: type[FaultyFiles]
) -> None:
    counted = disk()
    extract(memory_path / "counted", ROWS, counted)
    for at in random.Random(disk.__name__).sample(counted.changing, 15):
        root = memory_path / str(at)
        with pytest.raises(Killed):
            extract(root, ROWS, disk({at: kills}))
        extract(root, ROWS, disk())
        assert_finished(root / THREE_SHARDS.folder_name, ROWS, clean)


def test_a_store_begun_with_links_continues_without(memory_path: Path) -> None:
    """As after a copy to another disk."""
    counted = FaultyFiles()
    extract(memory_path / "counted", ROWS, counted)
    with pytest.raises(Killed):
        extract(memory_path, ROWS, FaultyFiles({counted.changing[-20]: kills}))
    extract(memory_path, ROWS, WithoutLinks())
    assert_reads_back(memory_path / THREE_SHARDS.folder_name, ROWS)
    assert verify_store(memory_path / THREE_SHARDS.folder_name, full=True).ok
