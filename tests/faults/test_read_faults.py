"""Damage before or after a store is opened: each row read equals a plain numpy copy or is refused; full
verification finds all damage, quick verification what it promises.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stores import errors
from stores.checks.verify import store_status, verify_store
from stores.format.canonical_json import sha256_hex
from stores.format.manifest import MANIFEST_NAME, decode_manifest, receipts_digest
from stores.format.plan import Bin
from stores.reading.reader import Store, open_store
from stores.writing.writer import StoreWriter
from tests.faults.damage import (
    SHARD_FAULTS,
    SMALL_FILE_FAULTS,
    TWIN_FAULTS,
    Damage,
    ShardFault,
    flip,
    overwrite,
)
from tests.faults.made_stores import P5, P5N, TARGETS, Array, MadeRows, extract, fill_shards, small_plan
from tests.faults.outcomes import assert_equal_rows, assert_reads_back, read_row

BINS = (
    Bin(height_px=32, width_px=64, rows=7, shard_rows=2),
    Bin(height_px=64, width_px=32, rows=3, shard_rows=4),
)
ARRAYS = ("levels/p5/q", "levels/p5/scale", "targets/labels", "targets/original_labels", "pixels")


def rows_of(codec: str, seed: int, identity: int = 0) -> MadeRows:
    plan = small_plan(codec, bins=BINS, levels=(P5, P5N), targets=TARGETS, pixels=True, seed=identity)
    return MadeRows(plan, seed)


@dataclass(frozen=True, slots=True)
class Stores:
    """A store, and others to take wrong bytes from; nothing here is ever damaged."""

    rows: MadeRows
    copies: list[dict[str, Array]]
    path: Path
    stale: Path
    """Another extraction of the same plan, whose bytes differ."""
    foreign: Path
    """A store of another identity and equal geometry."""

    def own(self, folder: Path) -> Path:
        """A copy of the store to damage."""
        return shutil.copytree(self.path, folder / self.path.name)

    def source(self, store: Path, name: str, source: str) -> Path:
        """The file of shard 1 of an array in bin 0 that is to be mistaken for the store's own."""
        if source == "next":
            return shard_file(store, name, 0)
        if source == "twin":
            return shard_file(store, name.replace("p5", "p5n"), 1)
        return shard_file(getattr(self, source), name, 1)


def shard_file(store: Path, name: str, shard: int) -> Path:
    folder = store / "bins" / BINS[0].name / name / "c" / str(shard)
    return next(file for file in folder.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def stores(module_path: Path) -> Stores:
    return make_stores(module_path, "int8")


def make_stores(folder: Path, codec: str) -> Stores:
    rows, stale, foreign = (rows_of(codec, seed, identity) for seed, identity in ((0, 0), (1, 0), (2, 1)))
    paths = []
    for name, each in (("store", rows), ("stale", stale), ("foreign", foreign)):
        extract(folder / codec / name, each)
        paths.append(folder / codec / name / each.plan.folder_name)
    return Stores(rows, list(rows.copies().values()), *paths)


def right_or_refused(open_it: Callable[[], Store], copies: Sequence[Mapping[str, Array]]) -> list[int]:
    """Reads every row by itself; returns the refused ones, which are all if the store is refused."""
    try:
        store = open_it()
        assert len(store) == len(copies)
    except errors.StoreError:
        return list(range(len(copies)))
    refused = []
    for row, wanted in enumerate(copies):
        try:
            found = read_row(store, row)
        except errors.StoreError:
            refused.append(row)
        else:
            assert_equal_rows(found, wanted)
    return refused


def damaged_at_each_time(
    stores: Stores, folder: Path, damage: Callable[[Path], object]
) -> tuple[Path, list[int]]:
    """Damages a store before it is opened, after, and after all was read once.

    Returns a damaged store and the rows that it refuses when it is opened then.
    """
    path = stores.own(folder)
    opened, read = open_store(path, threads=1), open_store(path, threads=1)
    assert right_or_refused(lambda: read, stores.copies) == []
    damage(path)
    right_or_refused(lambda: opened, stores.copies)
    right_or_refused(lambda: read, stores.copies)
    refused = right_or_refused(lambda: open_store(path, threads=1), stores.copies)
    for store in (opened, read):
        store.close()
    return path, refused


def assert_shard_fault(stores: Stores, folder: Path, name: str, fault: ShardFault) -> None:
    def damage(path: Path) -> None:
        fault.damage(shard_file(path, name, 1), stores.source(path, name, fault.source))

    path, refused = damaged_at_each_time(stores, folder, damage)
    assert bool(refused) == fault.reads
    assert not verify_store(path, full=True).ok
    if fault.quick:
        assert not verify_store(path).ok


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("fault", SHARD_FAULTS)
def test_shards(stores: Stores, memory_path: Path, name: str, fault: str) -> None:
    assert_shard_fault(stores, memory_path, name, SHARD_FAULTS[fault])


@pytest.mark.parametrize("name", ["levels/p5/q", "levels/p5/scale"])
@pytest.mark.parametrize("fault", TWIN_FAULTS)
def test_levels_of_equal_shape(stores: Stores, memory_path: Path, name: str, fault: str) -> None:
    assert_shard_fault(stores, memory_path, name, TWIN_FAULTS[fault])


def test_the_crc_inside_a_shard_is_not_used(stores: Stores, memory_path: Path) -> None:
    """Damage there changes no row; full verification still finds it."""
    row_bytes = stores.copies[0]["levels/p5/q"].nbytes
    fault = ShardFault(flip(row_bytes), reads=False)
    assert_shard_fault(stores, memory_path, "levels/p5/q", fault)


def small_files(store: Path) -> list[str]:
    """Every file of a store that is not a shard."""
    shards = tuple(
        f"bins/{b.name}/{name.replace('p5', level)}/c/"
        for b in BINS
        for name in ARRAYS
        for level in ("p5", "p5n")
    )
    names = (file.relative_to(store).as_posix() for file in store.rglob("*") if file.is_file())
    return sorted(name for name in names if not name.startswith(shards))


def damage_small_file(stores: Stores, path: Path, name: str, damage: Damage) -> None:
    """Damages one file of the copy at `path` before it is opened, after, and after all was read once; then
    restores it."""
    file, sound = path / name, (path / name).read_bytes()
    opened, read = open_store(path, threads=1), open_store(path, threads=1)
    assert right_or_refused(lambda: read, stores.copies) == []
    damage(file, stores.foreign / name)
    if file.exists() and file.read_bytes() == sound:  # foreign, and equal
        return
    for store in (opened, read):
        right_or_refused(lambda store=store: store, stores.copies)  # type: ignore[misc]
        store.close()
    right_or_refused(lambda: open_store(path, threads=1), stores.copies)
    for full in (False, True):
        assert not verify_store(path, full=full).ok, (name, full)
    file.write_bytes(sound)


OF_EACH_KIND = (
    "MANIFEST.json",
    "plan.json",
    "zarr.json",
    "receipts/32x64-1.json",
    "rows/zarr.json",
    "rows/key/c/0/0",
    "rows/view/c/0",
    "rows/params/c/0/0",
    "rows/bin/c/0",
    "rows/valid_hw/c/0/0",
    "rows/original_hw/c/0/0",
    "rows/outcome/c/0",
    "rows/source/c/0/0",
    "bins/32x64/levels/p5/q/zarr.json",
    "bins/32x64/levels/p5/crc/c/0",
    "bins/32x64/levels/p5/scale_crc/c/0",
    "bins/32x64/targets/labels_crc/c/0",
    "bins/32x64/targets/original_labels_bytes/c/0",
)


@pytest.mark.parametrize("fault", SMALL_FILE_FAULTS)
@pytest.mark.ci
def test_small_files(stores: Stores, memory_path: Path, fault: str) -> None:
    path = stores.own(memory_path)
    for name in OF_EACH_KIND:
        damage_small_file(stores, path, name, SMALL_FILE_FAULTS[fault])


@pytest.mark.slow
@pytest.mark.parametrize("fault", SMALL_FILE_FAULTS)
def test_every_small_file(stores: Stores, memory_path: Path, fault: str) -> None:
    path = stores.own(memory_path)
    for name in small_files(path):
        damage_small_file(stores, path, name, SMALL_FILE_FAULTS[fault])


def flip_bytes(stores: Stores, folder: Path, share: float) -> None:
    """Flips a bit in this share of all bytes of a store, one at a time."""
    path = stores.own(folder)
    chosen = random.Random(f"flip {share}")
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        sound = file.read_bytes()
        for at in range(len(sound)):
            if chosen.random() >= share:
                continue
            flip(at)(file, file)
            right_or_refused(lambda: open_store(path, threads=1), stores.copies)
            assert not verify_store(path, full=True).ok, (file.relative_to(path), at)
            overwrite(file, sound)


@pytest.mark.ci
def test_flipped_bits(stores: Stores, memory_path: Path) -> None:
    flip_bytes(stores, memory_path, 0.001)


@pytest.mark.slow
def test_many_flipped_bits(stores: Stores, memory_path: Path) -> None:
    flip_bytes(stores, memory_path, 0.05)


def test_an_edited_receipt_whose_digest_was_edited_too(stores: Stores, memory_path: Path) -> None:
    """The CRC tables depend on the receipts, so one cannot be changed without the other."""
    path = stores.own(memory_path)
    shutil.copy(stores.stale / "receipts/32x64-1.json", path / "receipts/32x64-1.json")
    digests = []
    for shard in stores.rows.plan.shards():
        name = f"receipts/{stores.rows.plan.shard_name(shard)}.json"
        digests.append((name, sha256_hex((path / name).read_bytes())))
    manifest = decode_manifest((path / MANIFEST_NAME).read_bytes(), "it")
    edited = replace(manifest, receipts_sha256=receipts_digest(digests))
    (path / MANIFEST_NAME).write_bytes(edited.to_bytes())
    assert right_or_refused(lambda: open_store(path), stores.copies) == []
    assert not verify_store(path, full=True).ok
    assert not verify_store(path).ok


def edit(file: Path, old: bytes, new: bytes) -> None:
    """Of the same length: the text stays canonical JSON."""
    data = file.read_bytes()
    assert len(old) == len(new) and data.count(old) >= 1
    file.write_bytes(data.replace(old, new))


def test_a_receipt_with_another_target(stores: Stores, memory_path: Path) -> None:
    path = stores.own(memory_path)
    edit(path / "receipts/32x64-1.json", b'"original_labels":[', b'"original_Labels":[')
    assert not verify_store(path).ok


def test_another_reason_for_skipping(stores: Stores, memory_path: Path) -> None:
    """Nothing binds the manifest, but its list of skipped rows must equal the receipts'."""
    path = stores.own(memory_path)
    edit(path / MANIFEST_NAME, b"not an image", b"not an imagf")
    assert right_or_refused(lambda: open_store(path), stores.copies) == []
    assert not verify_store(path).ok


def test_everything_small_from_another_store(stores: Stores, memory_path: Path) -> None:
    """A consistent set of tables and manifest does not make another store's shards its own."""
    path = stores.own(memory_path)
    for source in (stores.stale, stores.foreign):
        for name in small_files(source):
            shutil.copy(source / name, path / name)
        assert len(right_or_refused(lambda: open_store(path), stores.copies)) == len(stores.copies)
        assert not verify_store(path, full=True).ok


def test_another_store_at_the_same_place(stores: Stores, memory_path: Path) -> None:
    """An open store continues with its own files or refuses; it never mixes two."""
    path = stores.own(memory_path)
    opened = open_store(path, threads=1)
    read_row(opened, 0)
    path.rename(memory_path / "elsewhere")
    shutil.copytree(stores.stale, path)
    assert right_or_refused(lambda: opened, stores.copies) == []
    assert verify_store(path, full=True).ok
    shutil.rmtree(memory_path / "elsewhere")
    right_or_refused(lambda: opened, stores.copies)


def test_a_kill_between_the_last_shard_and_the_manifest(stores: Stores, memory_path: Path) -> None:
    fill_shards(memory_path, stores.rows)
    path = memory_path / stores.rows.plan.folder_name
    with pytest.raises(errors.IncompleteStore):
        open_store(path)
    assert not verify_store(path, full=True).ok
    status = store_status(path)
    assert not status.complete and status.missing == () and status.written == len(stores.copies)
    StoreWriter.open_or_create(memory_path, stores.rows.plan).finish()
    assert_reads_back(path, stores.rows)
    assert verify_store(path, full=True).ok


class FailingSystem:
    """The reads of the operating system, of which the n-th fails once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
        self.number, self.code, self.done = number, code, 0
        for name in ("open", "pread", "preadv", "stat", "fstat"):
            monkeypatch.setattr(os, name, self._failing(getattr(os, name)))

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.done += 1
            if self.done == self.number:
                raise OSError(self.code, os.strerror(self.code))
            return call(*args, **kwargs)

        return counted


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOMEM])
@pytest.mark.ci
def test_a_disk_that_fails_once(stores: Stores, code: int) -> None:
    """The caller gets the error of the disk, not one of a damaged store; the next try succeeds."""
    number, done = 1, False
    while not done:
        with pytest.MonkeyPatch.context() as patch:
            system = FailingSystem(patch, number, code)
            try:
                with open_store(stores.path, threads=1) as store:
                    found = [read_row(store, row) for row in (0, 1)]
            except OSError as error:
                assert not isinstance(error, errors.StoreError), error
                found = []
            done = system.done < number
        for copy, wanted in zip(found, stores.copies, strict=False):
            assert_equal_rows(copy, wanted)
        number += 1
    assert number > 50, "opening and reading took so many calls"
