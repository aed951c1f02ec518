"""Reads of files that change before or after they are opened, and of a failing disk."""

import errno
import os
import threading

import numpy as np
import pytest

from stores import open_store
from stores.errors import IntegrityError
from tests.faults.made_stores import MadeRows, extract
from tests.stores.codecs.encoded_rows import assert_row


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def test_verify_modes(own_path):
    """`always` finds changes after the first read; `first-epoch` and `off` do not."""
    stores = {mode: open_store(own_path, verify=mode) for mode in ("always", "first-epoch", "off")}
    before = {mode: store.read_encoded([0, 1])["p4"]["q"] for mode, store in stores.items()}
    flip(own_path / "bins/64x64/levels/p4/q/c/0/0/0/0", 3)
    with pytest.raises(IntegrityError, match=r"levels/p4/q, shard 0, row 0 .* CRC32C"):
        stores["always"].read_encoded([1, 0])
    assert (stores["off"].read_encoded([0])["p4"]["q"][0] != before["off"][0]).any()
    assert (stores["first-epoch"].read_encoded([0])["p4"]["q"][0] != before["first-epoch"][0]).any()
    fresh = open_store(own_path, verify="first-epoch")
    with pytest.raises(IntegrityError, match="CRC32C"):
        fresh.read_encoded([0])
    with pytest.raises(IntegrityError, match="CRC32C"):  # not forgiven the second time
        fresh.read_encoded([0])


@pytest.mark.parametrize(
    "array", ["levels/p4/q", "levels/p4/scale", "targets/labels", "targets/original_labels", "pixels"]
)
@pytest.mark.parametrize("opened_before", [True, False])
def test_every_array_is_checked_against_its_table(own_path, rows, array, opened_before):
    """A stale shard, of another extraction of the same plan, has valid checksums inside."""
    other = own_path.parent / "other"
    extract(other, MadeRows(rows.plan, seed=1, skipped=rows.skipped))
    folder = own_path / f"bins/64x64/{array}/c/0"
    file = next(p for p in folder.rglob("*") if p.is_file())
    foreign = other / own_path.name / file.relative_to(own_path)
    assert foreign.read_bytes() != file.read_bytes()
    store = open_store(own_path, threads=1)

    def read():
        store.read_encoded([0])
        store.read_targets([0])
        store.read_pixels([0])

    if opened_before:
        read()
    file.write_bytes(foreign.read_bytes())
    with pytest.raises(IntegrityError, match=array):
        read()


def test_errors_of_a_thread_reach_the_caller(own_path):
    with open_store(own_path, threads=2) as store:
        flip(own_path / "bins/64x64/levels/p5/q/c/2/0/0/0", 0)
        barrier = threading.active_count()
        with pytest.raises(IntegrityError, match="levels/p5/q, shard 2"):
            store.read_encoded(range(len(store)))
        store.read_encoded([0, 1])
        assert threading.active_count() <= barrier + 2


class Preadv:
    """os.preadv that at chosen calls reads less, or fails."""

    def __init__(self, monkeypatch, behave):
        self.real, self.calls, self.behave = os.preadv, 0, behave
        monkeypatch.setattr(os, "preadv", self)

    def __call__(self, fd, buffers, offset):
        self.calls += 1
        return self.behave(self, fd, buffers, offset)


def test_short_reads_are_completed(path, rows, monkeypatch):
    def behave(self, fd, buffers, offset):
        return self.real(fd, [buffers[0][:7]], offset)

    with open_store(path, threads=1) as store:
        calls = Preadv(monkeypatch, behave)
        found = store.read_encoded([2])
        targets = store.read_targets([2])
        monkeypatch.undo()
        assert calls.calls > 50
        assert_row(found, 0, list(rows.copies().values())[2])
        np.testing.assert_array_equal(targets[0]["labels"], list(rows.copies().values())[2]["targets/labels"])


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
def test_a_stale_descriptor_is_reopened_and_other_errors_are_raised(path, rows, monkeypatch, code):
    def behave(self, fd, buffers, offset):
        if self.calls == 1:
            raise OSError(code, os.strerror(code))
        return self.real(fd, buffers, offset)

    with open_store(path, threads=1) as store:
        Preadv(monkeypatch, behave)
        if code == errno.ESTALE:
            assert_row(store.read_encoded([2]), 0, list(rows.copies().values())[2])
        else:
            with pytest.raises(OSError, match=os.strerror(code)) as raised:
                store.read_encoded([2])
            assert not isinstance(raised.value, IntegrityError)  # the disk's fault, not the store's


def test_a_moved_store_stays_readable(own_path, rows):
    with open_store(own_path) as store:
        moved = own_path.rename(own_path.with_name("moved"))
        assert_row(store.read_encoded([8]), 0, list(rows.copies().values())[8])
    with open_store(moved) as store:  # its name is not part of its identity
        assert_row(store.read_encoded([8]), 0, list(rows.copies().values())[8])
