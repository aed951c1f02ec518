"""Every operation of the writer fails, is cut short or is the last of its process; then the job runs again.

The run has three shards in two bins, a skipped row, a dense and a ragged target. After every fault the store
ends with the bytes of a run without faults and no other file.
"""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from stores.checks.verify import gc_orphans
from stores.errors import IncompleteStore, NoSuchStore, SpaceError, StoreError
from stores.format.manifest import MANIFEST_NAME, PLAN_NAME
from stores.reading.reader import open_store
from stores.shards.disk import Files
from tests.faults.faulty_files import (
    FaultyFiles,
    FullDisk,
    Killed,
    Slow,
    fails,
    fails_half_way,
    kills,
    kills_half_way,
    shortens,
)
from tests.faults.made_stores import NEW_LAYOUT, ORIGINAL_LABELS, MadeRows, extract, small_plan
from tests.faults.outcomes import assert_finished, assert_reads_back, store_files, without_writers
from tests.faults.unsynced_disk import FilesOnUnsyncedDisk, UnsyncedDisk

PLANS = {
    "packed": MadeRows(small_plan("int8", **NEW_LAYOUT)),
    "int8": MadeRows(small_plan("int8")),
    "float16": MadeRows(small_plan("float16", targets=(ORIGINAL_LABELS,))),
}
ERRORS = (errno.EIO, errno.ENOSPC, errno.ESTALE)


class CleanRun:
    """A run without faults: its operations and its files."""

    def __init__(self, root: Path, rows: MadeRows) -> None:
        files = FaultyFiles()
        root.mkdir()  # as for the runs with faults, whose operations have the same numbers
        extract(root, rows, files)
        assert_reads_back(root / rows.plan.folder_name, rows)
        self.rows, self.names, self.changing = rows, files.names, files.changing
        self.content = without_writers(store_files(root / rows.plan.folder_name))

    def numbers(self, *names: str) -> list[int]:
        """Of the operations of these names."""
        return [n for n, name in enumerate(self.names) if name in names]


@pytest.fixture(scope="module")
def clean_runs(module_path: Path) -> dict[str, CleanRun]:
    return {name: CleanRun(module_path / name, rows) for name, rows in PLANS.items()}


@pytest.fixture(
    params=[
        "packed",
        pytest.param("int8", marks=pytest.mark.slow),
        pytest.param("float16", marks=pytest.mark.slow),
    ]
)
def clean(request: pytest.FixtureRequest, clean_runs: dict[str, CleanRun]) -> CleanRun:
    return clean_runs[request.param]


def some(numbers: Sequence[int], most: int, purpose: str) -> list[int]:
    """A seeded choice of them, in order."""
    picked = random.Random(purpose).sample(range(len(numbers)), min(most, len(numbers)))
    return [numbers[i] for i in sorted(picked)]


def roots(memory_path: Path, numbers: Iterable[int]) -> Iterator[tuple[int, Path]]:
    """For the fault at each operation a folder of its own."""
    for n in numbers:
        root = memory_path / str(n)
        root.mkdir()
        yield n, root
        shutil.rmtree(root)


def kill_and_run_again(
    root: Path, clean: CleanRun, files: Files, between: Callable[[Path], object] = lambda path: None
) -> None:
    """Kills a run, does something else if asked to, and runs the job again."""
    path = root / clean.rows.plan.folder_name
    with pytest.raises(Killed):
        extract(root, clean.rows, files)
    between(path)
    assert_whole_or_unfinished(path, clean.rows)
    extract(root, clean.rows, FaultyFiles())
    assert_finished(path, clean.rows, clean.content)


def assert_whole_or_unfinished(path: Path, rows: MadeRows) -> None:
    if (path / MANIFEST_NAME).exists():
        assert_reads_back(path, rows)
    else:
        with pytest.raises((IncompleteStore, NoSuchStore)):
            open_store(path)


def test_a_kill(memory_path: Path, clean: CleanRun) -> None:
    for n, root in roots(memory_path, some(clean.changing, 60, "kill")):
        kill_and_run_again(root, clean, FaultyFiles({n: kills}))


@pytest.mark.ci
def test_a_kill_at_every_operation(memory_path: Path, clean: CleanRun) -> None:
    """Before each that changes the disk, which leaves what a kill after the one before it leaves."""
    for n, root in roots(memory_path, clean.changing):
        kill_and_run_again(root, clean, FaultyFiles({n: kills}))


def test_a_kill_of_a_run_without_scales(memory_path: Path, clean_runs: dict[str, CleanRun]) -> None:
    clean = clean_runs["float16"]
    for n, root in roots(memory_path, some(clean.changing, 40, "float16")):
        kill_and_run_again(root, clean, FaultyFiles({n: kills}))


def test_a_kill_half_way_through_a_write(memory_path: Path, clean: CleanRun) -> None:
    for n, root in roots(memory_path, some(clean.numbers("write"), 25, "half way")):
        kill_and_run_again(root, clean, FaultyFiles({n: kills_half_way}))


@pytest.mark.ci
def test_a_kill_half_way_through_every_write(memory_path: Path, clean: CleanRun) -> None:
    for n, root in roots(memory_path, clean.numbers("write")):
        kill_and_run_again(root, clean, FaultyFiles({n: kills_half_way}))


def test_garbage_is_collected_between_a_kill_and_the_next_run(memory_path: Path, clean: CleanRun) -> None:
    """Files of a receipt are not garbage, even before they are renamed into place."""

    def collect(path: Path) -> None:
        if (path / PLAN_NAME).exists():
            gc_orphans(path, delete=True)

    protocol = clean.numbers("link", "rename", "unlink")
    for n, root in roots(memory_path, some(protocol, 40, "garbage")):
        kill_and_run_again(root, clean, FaultyFiles({n: kills}), collect)


def lose_power_and_run_again(memory_path: Path, clean: CleanRun, numbers: Sequence[int]) -> None:
    for n, root in roots(memory_path, numbers):
        disk = UnsyncedDisk(root / "attic")
        files = FilesOnUnsyncedDisk(disk, {n: kills})
        kill_and_run_again(root, clean, files, lambda path, disk=disk: disk.lose_power())


def test_a_loss_of_power(memory_path: Path, clean: CleanRun) -> None:
    lose_power_and_run_again(memory_path, clean, some(range(len(clean.names)), 40, "power"))


@pytest.mark.slow
def test_a_loss_of_power_at_every_operation(memory_path: Path, clean: CleanRun) -> None:
    lose_power_and_run_again(memory_path, clean, range(len(clean.names)))


def lose_power_after_a_kill_and_the_next_run(root: Path, clean: CleanRun, n: int) -> None:
    disk = UnsyncedDisk(root / "attic")
    with pytest.raises(Killed):
        extract(root, clean.rows, FilesOnUnsyncedDisk(disk, {n: kills}))
    extract(root, clean.rows, FilesOnUnsyncedDisk(disk))
    disk.lose_power()
    assert_finished(root / clean.rows.plan.folder_name, clean.rows, clean.content)


def test_a_finished_store_survives_a_loss_of_power(memory_path: Path, clean: CleanRun) -> None:
    """Including files that an earlier, killed run had renamed but not synced."""
    for n, root in roots(memory_path, some(clean.changing, 30, "finished")):
        lose_power_after_a_kill_and_the_next_run(root, clean, n)


@pytest.mark.slow
def test_a_finished_store_survives_a_loss_of_power_after_any_kill(memory_path: Path, clean: CleanRun) -> None:
    for n, root in roots(memory_path, clean.changing):
        lose_power_after_a_kill_and_the_next_run(root, clean, n)


def fail_and_run_again(root: Path, clean: CleanRun, files: FaultyFiles) -> None:
    """The error reaches the caller or is handled; the same process then runs the job again."""
    path = root / clean.rows.plan.folder_name
    try:
        extract(root, clean.rows, files)
    except OSError as error:
        assert not isinstance(error, StoreError) or error.errno is None, "an environment error is not damage"
    extract(root, clean.rows, FaultyFiles())
    assert_finished(path, clean.rows, clean.content)


def fail_at(memory_path: Path, clean: CleanRun, numbers: Sequence[int], errors: Sequence[int]) -> None:
    for n, root in roots(memory_path, numbers):
        fail_and_run_again(root, clean, FaultyFiles({n: fails(errors[n % len(errors)])}))


def test_an_operation_fails(memory_path: Path, clean: CleanRun) -> None:
    fail_at(memory_path, clean, some(range(len(clean.names)), 80, "fails"), ERRORS)


@pytest.mark.slow
@pytest.mark.parametrize("code", ERRORS)
def test_every_operation_fails(memory_path: Path, clean: CleanRun, code: int) -> None:
    fail_at(memory_path, clean, range(len(clean.names)), [code])


def test_a_failed_shard_leaves_no_file_behind(memory_path: Path, clean_runs: dict[str, CleanRun]) -> None:
    """It would take space on a full disk."""
    clean = clean_runs["packed"]
    for n, root in roots(memory_path, some(clean.numbers("create", "write", "sync"), 60, "leaves")):
        with pytest.raises(OSError):
            extract(root, clean.rows, FaultyFiles({n: fails(errno.ENOSPC)}))
        assert not list(root.rglob("*.partial")), (n, clean.names[n])


def test_a_write_is_cut_short_by_an_error(memory_path: Path, clean: CleanRun) -> None:
    for n, root in roots(memory_path, some(clean.numbers("write"), 25, "cut short")):
        fail_and_run_again(root, clean, FaultyFiles({n: fails_half_way(errno.ENOSPC)}))


def test_the_disk_is_full_for_a_while(memory_path: Path, clean: CleanRun) -> None:
    for n, root in roots(memory_path, some(range(len(clean.names)), 25, "full")):
        fail_and_run_again(root, clean, FullDisk(n, errno.ENOSPC))


def test_short_writes_and_reads_are_handled(memory_path: Path, clean: CleanRun) -> None:
    """One at a time, and all of them together."""
    numbers = some(clean.numbers("write", "read"), 25, "short")
    for each in [FaultyFiles({n: shortens}) for n in numbers] + [Slow()]:
        root = memory_path / "run"
        extract(root, clean.rows, each)
        assert_finished(root / clean.rows.plan.folder_name, clean.rows, clean.content)
        shutil.rmtree(root)


def test_too_little_space_is_reported_before_anything_is_written(memory_path: Path) -> None:
    class Small(Files):
        def free_bytes(self, path: Path) -> int:
            return 100

    rows = PLANS["packed"]
    with pytest.raises(SpaceError) as caught:
        extract(memory_path, rows, Small())
    assert caught.value.free_bytes == 100 and caught.value.needed_bytes == rows.plan.total_bytes
    assert not [f for f in memory_path.rglob("*") if f.is_file()]
