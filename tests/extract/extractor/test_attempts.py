"""Records that end their decoder or the process: tried a bounded number of times, then skipped by name."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from extract.backbones.loading import FrozenBackbone
from extract.datasets.layouts.label_maps import LabelMaps
from extract.decoding.decoder_pool import DecoderPool
from extract.decoding.trial import ends_its_process
from extract.extractor.row_loader import ENDED_THE_PROCESS, RowLoader
from extract.sources.byte_sources import MAX_SOURCE, FileSource, SourceError
from stores import verify_store
from stores.checks.status import store_status
from stores.format.row_table import OVER_LIMIT, UNDECODABLE
from stores.work.attempts import Attempts, record_name, shard_attempts
from tests.extract.datasets.made_ade20k import make_pairs, write_split
from tests.extract.decoding.test_image_media import MISBEHAVING
from tests.extract.extractor.extraction import Row, Stopping, row_digests, run, skipped
from tests.unsynced import unsynced  # noqa: F401 - a fixture of this file

PAIRS = make_pairs(6, "training")
BAD = "ADE_train_00000003"
SETTINGS = {"shard_rows": 2, "workers": 2}
Rows = dict[Row, str]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, backbone: FrozenBackbone) -> Rows:
    folder = tmp_path_factory.mktemp("clean")
    write_split(folder / "data", "training", PAIRS)
    return row_digests(run(folder / "data", folder / "stores", backbone, **SETTINGS)[0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One image ends with "bad", which decoders of `misbehaving` notice."""
    write_split(tmp_path / "data", "training", {**PAIRS, BAD: (PAIRS[BAD][0] + b"bad", PAIRS[BAD][1])})
    return tmp_path / "data"


def misbehaving(monkeypatch: pytest.MonkeyPatch, action: str, limit_s: float = 60.0) -> DecoderPool:
    command = (sys.executable, "-c", MISBEHAVING.format(action=action))
    pool = DecoderPool(limit_s=limit_s, processes=2, command=command)
    for module in ("decoding.image_media", "extractor.row_loader"):
        monkeypatch.setattr(f"extract.{module}.decoder_pool", lambda: pool)
    return pool


def others(rows: Rows) -> Rows:
    return {row: digest for row, digest in rows.items() if row[0] != BAD}


@pytest.mark.parametrize(
    ("action", "limit_s", "reason", "tries"),
    [
        ("os.abort()", 60.0, "the decoder crashed (signal 6)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", 60.0, "the decoder had no memory left", 3),
        ("hang()", 1.0, "the decoder did not finish within 1 s", 1),
    ],
)
def test_a_record_that_ends_its_decoder_is_skipped_after_three_tries(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    clean: Rows,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    action: str,
    limit_s: float,
    reason: str,
    tries: int,
) -> None:
    pool = misbehaving(monkeypatch, action, limit_s)
    alone: list[str] = []
    monkeypatch.setattr(pool, "alone", lambda real=pool.alone: alone.append(reason) or real())
    path, _ = run(root, tmp_path / "stores", backbone, **SETTINGS)
    assert skipped(path) == {(BAD, 0): (UNDECODABLE, reason)}
    assert sum(BAD in message and reason in message for message in caplog.messages) == tries
    assert len(alone) == (tries == 3), "the last time with nothing beside it"
    assert others(row_digests(path)) == others(clean) and verify_store(path, full=True).ok
    assert not (path / "work").exists()


def test_no_run_tries_what_earlier_runs_have_tried_out(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    clean: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "stores", Stopping(backbone, tmp_path / "stores"), **SETTINGS)
    (path,) = (tmp_path / "stores").iterdir()
    Attempts(path).add(record_name(BAD), "the decoder crashed (signal 11)", times=3)
    misbehaving(monkeypatch, f"pathlib.Path({str(tmp_path / 'tried')!r}).touch()")
    run(root, tmp_path / "stores", backbone, **SETTINGS)
    assert skipped(path) == {(BAD, 0): (UNDECODABLE, "the decoder crashed (signal 11)")}
    assert not (tmp_path / "tried").exists() and others(row_digests(path)) == others(clean)


def test_a_record_that_recovers_is_kept(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    clean: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It fell to the memory that others used."""
    once = tmp_path / "once"
    action = f"p = pathlib.Path({str(once)!r}); b = p.exists(); p.touch(); b or os.kill(os.getpid(), 9)"
    misbehaving(monkeypatch, action)
    path, summary = run(root, tmp_path / "stores", backbone, **SETTINGS)
    assert once.exists() and (summary.rows_written, summary.skipped) == (6, [])
    assert others(row_digests(path)) == others(clean)


def test_records_of_shards_that_ended_processes_are_loaded_one_by_one(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    clean: Rows,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As three processes left it that died with a shard, and three that then died alone with one record."""
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "stores", Stopping(backbone, tmp_path / "stores"), **SETTINGS)
    (path,) = (tmp_path / "stores").iterdir()
    attempts = Attempts(path)
    for shard in store_status(path).missing:
        attempts.add(shard_attempts(shard), "its process ended", times=3)
    attempts.add(record_name(BAD), ENDED_THE_PROCESS, times=3)
    _, summary = run(root, tmp_path / "stores", backbone, **SETTINGS)
    assert "3 shards have ended 3 processes or more: their records are loaded one by one" in caplog.text
    assert skipped(path) == {(BAD, 0): (UNDECODABLE, ENDED_THE_PROCESS)}
    assert summary.rows_written == 5 and others(row_digests(path)) == others(clean)


@pytest.mark.parametrize(
    ("act", "one_by_one", "reason"),
    [
        (os.abort, True, "loading it ended its process (signal 6)"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), True, "loading it used up the memory"),
        (lambda: bytearray(1 << 62), True, "loading it used up the memory"),
        (lambda: bytearray(1 << 62), False, "loading it used up the memory"),
    ],
)
def test_a_record_that_ends_processes_ends_children_alone(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    clean: Rows,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    act: Callable[[], object],
    one_by_one: bool,
    reason: str,
) -> None:
    """Its label map does it, which no decoder process reads. In order: a child, a child, a child; skipped."""
    whole, here = LabelMaps.parse_annotation, os.getpid()
    in_this_process: list[int] = []

    def parse(self: LabelMaps, index: int, annotation: bytes) -> object:
        if self.records[index].key == BAD:
            in_this_process.extend([index] * (os.getpid() == here))
            act()
        return whole(self, index, annotation)

    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "stores", Stopping(backbone, tmp_path / "stores"), **SETTINGS)
    (path,) = (tmp_path / "stores").iterdir()
    attempts = Attempts(path)
    for shard in store_status(path).missing if one_by_one else ():
        attempts.add(shard_attempts(shard), "its process ended", times=3)
    opened_after_planning = monkeypatch.setattr
    monkeypatch.setattr(RowLoader, "_check_annotation", lambda *_: None)
    real = RowLoader.__init__

    def loader(self: RowLoader, *given: object, **more: object) -> None:
        opened_after_planning(LabelMaps, "parse_annotation", parse)
        real(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(RowLoader, "__init__", loader)
    _, summary = run(root, tmp_path / "stores", backbone, **SETTINGS)
    assert skipped(path) == {(BAD, 0): (UNDECODABLE, reason)}
    assert len(in_this_process) == (not one_by_one), "and then in children alone"
    assert [f"{BAD}: {reason} (attempt {n})" in caplog.text for n in (1, 2, 3)] == [True] * 3
    assert summary.rows_written == 5 and others(row_digests(path)) == others(clean)


def test_a_child_that_raises_or_hangs() -> None:
    def raises() -> None:
        raise OSError("met by the parent itself")

    assert ends_its_process(raises) is None and ends_its_process(lambda: None) is None
    assert ends_its_process(lambda: time.sleep(60), limit_s=1) == "loading it did not finish within 1 s"


def test_a_source_beyond_the_limit_is_skipped_unread(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    clean: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """7 GB of holes: a limit of bytes read would not notice."""
    image = next(root.rglob(f"{BAD}.jpg"))
    os.truncate(image, 7_000_000_000)
    before = image.stat().st_size
    path, _ = run(root, tmp_path / "stores", backbone, **SETTINGS)
    reason = "7000000000 bytes, at most 1073741824 are read"
    assert before == 7_000_000_000 and skipped(path) == {(BAD, 0): (OVER_LIMIT, reason)}
    assert others(row_digests(path)) == others(clean)


def test_sources_are_bounded_and_regular(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(100))
    assert FileSource(path, 100).read() == bytes(100) and FileSource(path, 100).read(3) == bytes(3)
    assert len(FileSource(path, 10).read()) == 100, "it has changed, which its reader compares"
    monkeypatch.setattr(MAX_SOURCE, "bytes", 99)
    with pytest.raises(SourceError, match="100 bytes, at most 99 are read"):
        FileSource(path, 100).read()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="not a regular file"):
        FileSource(tmp_path / "pipe", 0).read()
    with pytest.raises(FileNotFoundError):
        FileSource(tmp_path / "none", 0).read()
