"""Several extractions of one store: each shard is computed once, and each process counts its own rows."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

import pytest
from torch import Tensor

import extract.extractor.shared_shards
import stores.remote.opening
from extract.backbones.loading import FrozenBackbone
from extract.extractor.run import Progress, Summary
from stores import verify_store
from stores.shards.disk import Files, remove_if_there
from stores.work.claims import Claims
from tests.extract.datasets.made_ade20k import write_folder
from tests.extract.extractor.extraction import Row, Stopping, Wrapped, row_digests, run
from tests.stores.work.test_claims import ended_process, write_claim
from tests.unfinished import receipts_of
from tests.unsynced import unsynced  # noqa: F401 - a fixture of this file

RECORDS = 9
SETTINGS = {"views": 2, "shard_rows": 2, "batch_rows": 1, "workers": 1}
ROWS, SHARDS = 18, 9


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), training=RECORDS, validation=1)


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory, backbone: FrozenBackbone) -> dict[Row, str]:
    return row_digests(run(root, tmp_path_factory.mktemp("alone"), backbone, **SETTINGS)[0])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract.extractor.shared_shards, "POLL_S", 0.01)


class Counting(Wrapped):
    """Counts the rows that go through the backbone, and calls back after the first batch."""

    def __init__(self, backbone: FrozenBackbone, first: threading.Event | None = None) -> None:
        super().__init__(backbone, lambda _, x: x)
        self.rows, self._first = 0, first

    def __call__(self, pixels_NHWC: Tensor, valid_hw: Tensor):  # type: ignore[no-untyped-def]
        self.rows += len(pixels_NHWC)
        if self._first is not None:
            self._first.set()
        return super().__call__(pixels_NHWC, valid_hw)


def test_two_at_once_compute_no_shard_twice(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, alone: dict[Row, str]
) -> None:
    """Each waits with its second batch for the first one of the other, so that both take part."""
    begun = [threading.Event(), threading.Event()]
    backbones = [Counting(backbone, event) for event in begun]
    done: list[tuple[Path, Summary] | BaseException] = []

    def work(number: int) -> None:
        def wait(_: Progress) -> None:
            assert begun[1 - number].wait(60)

        try:
            done.append(run(root, tmp_path, backbones[number], progress=wait, **SETTINGS))
        except BaseException as error:
            done.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path, one), (_, other) = done  # type: ignore[misc]
    assert one.rows_written + other.rows_written == ROWS == sum(each.rows for each in backbones)
    assert min(one.rows_written, other.rows_written) > 0
    assert (one.shards, other.shards) == (other.shards_elsewhere, one.shards_elsewhere)
    assert one.shards + other.shards == SHARDS and one.shards_lost == other.shards_lost == 0
    assert one.manifest_digest == other.manifest_digest
    assert row_digests(path) == alone and verify_store(path, full=True).ok
    assert not (path / "work").exists()


def test_a_lost_race_is_reported_and_its_rows_are_not_counted(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    alone: dict[Row, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A process that stood still long enough to be taken for dead, while it computed its first shard."""
    quick_ones: list[Summary] = []

    def overtaken(_: Progress) -> None:
        if not quick_ones:
            with monkeypatch.context() as stalled:
                stalled.setattr(stores.remote.opening, "Claims", functools.partial(Claims, stall_s=-1))
                quick_ones.append(run(root, tmp_path, backbone, **SETTINGS)[1])

    path, slow = run(root, tmp_path, backbone, progress=overtaken, **SETTINGS)
    assert quick_ones[0].rows_written == ROWS and quick_ones[0].shards_lost == 0
    assert (slow.rows_written, slow.shards, slow.shards_elsewhere) == (0, 0, SHARDS)
    assert slow.shards_lost >= 1
    assert "another process finished it first" in caplog.text
    assert row_digests(path) == alone and verify_store(path, full=True).ok


def test_shards_of_a_process_that_is_gone_are_taken_over(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    alone: dict[Row, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that ended here, and one elsewhere whose counter stands still; the others come first."""
    caplog.set_level("INFO")
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path, Stopping(backbone, tmp_path, batch=1), **SETTINGS)
    (path,) = tmp_path.iterdir()
    assert not list((path / "work" / "claims").iterdir()), "an orderly end leaves no claim"
    write_claim(path, "64x64-7", pid=ended_process(), token="gone")
    write_claim(path, "64x64-1", host="elsewhere", pid=7, token="stalled")
    with pytest.MonkeyPatch.context() as impatient:
        impatient.setattr(stores.remote.opening, "Claims", functools.partial(Claims, stall_s=0.0))
        _, summary = run(root, tmp_path, backbone, **SETTINGS)
    assert summary.shards_elsewhere == 0
    order = [line for line in caplog.messages if "takes it over" in line or "waiting for" in line]
    assert [("64x64-7" in line, "1 shards of process 7 on elsewhere" in line) for line in order[:2]] == [
        (True, False),
        (False, True),
    ]
    assert "64x64-1" in order[2]
    assert row_digests(path) == alone and verify_store(path, full=True).ok


class CollectsTooMuch(Files):
    """After the n-th receipt its files vanish before they are renamed, as a `gc` of old did it."""

    def __init__(self, receipt: int) -> None:
        super().__init__()
        self._left = receipt

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self._left -= target.parent.name == "receipts"
        if self._left == 0:
            self._left = -1
            for path in target.parents[1].rglob("*.partial"):
                if path.parent != target.parent and "/c" in path.as_posix():
                    remove_if_there(self, path)


def test_files_that_vanish_before_they_are_renamed_are_written_again(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    alone: dict[Row, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, summary = run(root, tmp_path, backbone, files=CollectsTooMuch(3), **SETTINGS)
    assert "though its receipt was just created" in caplog.text and "retrying the shard" in caplog.text
    assert 1 in {receipt["generation"] for receipt in receipts_of(path)}
    assert summary.rows_written == ROWS and row_digests(path) == alone
    assert verify_store(path, full=True).ok
